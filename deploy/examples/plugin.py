"""Reports to ccollectd: plugin.py /run/cairn backup nightly up 90000000   the last being ttl_ms, the next one due"""
import sys, msgpack, zmq
run, service, unit, state, ttl_ms = sys.argv[1:]
push = zmq.Context().socket(zmq.PUSH)
push.connect(f"ipc://{run}/plugins")
push.send(msgpack.packb({"service": service, "unit": unit, "msg_type": state, "ttl_ms": int(ttl_ms)}))
push.close(linger=10_000)  # Until ccollectd has it, at most 10 s.
push.context.term()
