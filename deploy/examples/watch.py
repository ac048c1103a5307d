"""Prints what cprocessd says: watch.py /run/cairn [PREFIX...]   e.g. event.CRIT. or event.ERR.web1!"""
import json, sys, msgpack, zmq
sub = zmq.Context().socket(zmq.SUB)
for prefix in sys.argv[2:] or ["event."]:
    sub.subscribe(prefix)
sub.connect(f"ipc://{sys.argv[1]}/stream")
while True:
    topic, payload = sub.recv_multipart()
    print(topic.decode(), json.dumps(msgpack.unpackb(payload), default=repr), flush=True)
