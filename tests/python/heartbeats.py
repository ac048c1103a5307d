"""Peers that send ZMTP PING many times a second: they stay connected, hear everything and are answered."""
from zmq.utils.monitor import parse_monitor_message

from peer import *

BEATING = {"HEARTBEAT_IVL": 100, "HEARTBEAT_TIMEOUT": 500, "HEARTBEAT_TTL": 500}


def monitored(socket):
    """What happens to its connections from now on."""
    return socket.get_monitor_socket(zmq.EVENT_ALL)


def connections(monitor):
    happened = []
    while monitor.poll(0):
        happened.append(parse_monitor_message(monitor.recv_multipart())["event"])
    return happened


def connect_monitored(kind, name):
    socket = zmq.Context.instance().socket(kind)
    for option, value in BEATING.items():
        socket.set(getattr(zmq, option), value)
    socket.set(zmq.RCVTIMEO, PATIENCE_S * 1000)
    monitor = monitored(socket)
    socket.connect(f"ipc://{RUN}/{name}")
    return socket, monitor


peers = {name: connect_monitored(kind, name) for name, kind in {
    "stream": zmq.SUB, "feed": zmq.SUB, "query": zmq.REQ, "feed-query": zmq.DEALER, "cprocessd.sock": zmq.REQ, "plugins": zmq.PUSH,
}.items()}
for name in ["stream", "feed"]:
    peers[name][0].subscribe("beat.")
# Longer than three of the daemons' own heartbeats, of 5 s each, so that theirs are seen to be answered as well.
times = {"stream": [], "feed": []}
while len(times["stream"]) < 17:
    for name, had in times.items():
        had.append(receive(peers[name][0])[1][0]["time"])
for name, had in times.items():
    gaps = [b - a for a, b in zip(had, had[1:])]
    # None is missing, even if this machine is busy.
    assert all(0 < gap < 5000 for gap in gaps), (name, gaps)
# The others were idle all the while, and still work on the same connection.
peers["query"][0].send(b'{"query": "health"}')
assert peers["query"][0].recv_json()["ok"]
peers["cprocessd.sock"][0].send(b'{"query": "health"}')
assert peers["cprocessd.sock"][0].recv_json()["ok"]
peers["feed-query"][0].send(b'{"query": "health"}')
assert json.loads(peers["feed-query"][0].recv_multipart()[-1])["ok"]
peers["plugins"][0].send(msgpack.packb({"service": "idle", "msg_type": "up"}))
query = Asker("query")
wait_for("its report is known", lambda: [r for r in query.ask("service-list") if r["service"] == "idle"])
for name, (socket, monitor) in peers.items():
    happened = connections(monitor)
    assert happened.count(zmq.EVENT_HANDSHAKE_SUCCEEDED) == 1, (name, happened)
    assert not {zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED} & set(happened), (name, happened)
