"""PUSHes each line of standard input, a JSON object, as MessagePack: a plugin, as small as it can be."""
import json
import sys

import msgpack
import zmq

socket = zmq.Context.instance().socket(zmq.PUSH)
socket.set(zmq.LINGER, 10_000)
socket.set(zmq.SNDHWM, 100_000)
socket.connect(f"ipc://{sys.argv[1]}")
for line in sys.stdin:
    socket.send(msgpack.packb(json.loads(line)))
