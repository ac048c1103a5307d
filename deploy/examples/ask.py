"""Asks cprocessd: ask.py /run/cairn '{"query": "last-value", "pattern": "web*!machine.disk"}'"""
import json, sys, zmq
req = zmq.Context().socket(zmq.REQ)
req.setsockopt(zmq.RCVTIMEO, 5000), req.setsockopt(zmq.LINGER, 0)
req.connect(f"ipc://{sys.argv[1]}/query")
question = json.loads(sys.argv[2])
while question:
    req.send_json(question)
    print(json.dumps(reply := req.recv_json(), indent=1))
    question = "next" in reply and {"page": reply["next"]}
