"""Asks what cannot be answered: each gets an error in kind, and nothing else suffers."""
from peer import *


def code(reply):
    check(reply, {"ok": lambda ok: ok is False, "error": {"code": str, "message": str, "first_seq?": int}}, "reply")
    return reply["error"]["code"]


ORDER = {"order": "forget", "pattern": "*!nothing", "id": "1", "author": "me"}
EXPECTED = [
    ("query", {}, "unknown-request"),
    ("query", {"query": "weather"}, "unknown-request"),
    ("query", {"query": "x" * 10_000}, "unknown-request"),
    ("query", {"order": "forget"}, "unknown-request"),
    ("query", {"query": "server-status"}, "bad-argument"),
    ("query", {"query": "server-status", "host": "a b"}, "bad-argument"),
    ("query", {"query": "server-status", "host": "nobody"}, "not-found"),
    ("query", {"query": "service-list", "host": ""}, "bad-argument"),
    ("query", {"query": "last-value"}, "bad-argument"),
    ("query", {"query": "last-value", "pattern": "[a"}, "bad-argument"),
    ("query", {"query": "events"}, "bad-argument"),
    ("query", {"query": "events", "after": 10**9}, "gone"),
    ("query", {"query": "events", "after": 0, "epoch": "0000000000000000"}, "gone"),
    ("query", {"query": "events", "after": -1}, "undecodable"),
    ("query", {"query": "events", "after": "0"}, "undecodable"),
    ("query", {"query": 5}, "undecodable"),
    ("query", {"page": "1.1000"}, "page-expired"),
    ("query", {"page": ""}, "page-expired"),
    ("feed-query", {"query": "down-list"}, "unknown-request"),
    ("feed-query", {"query": "events"}, "bad-argument"),
    ("feed-query", {"query": "events", "after": 10**9}, "gone"),
    ("feed-query", {"page": "x"}, "page-expired"),
    ("feed-query", {"order": "forget"}, "bad-argument"),
    ("ccollectd.sock", {"query": "events", "after": 0}, "unknown-request"),
    ("cprocessd.sock", {"query": "down-list"}, "unknown-request"),
    ("control", {"query": "health"}, "unknown-request"),
    ("control", {"order": "reboot"}, "unknown-request"),
    ("control", ORDER | {"id": ""}, "bad-argument"),
    ("control", ORDER | {"author": "a\nb"}, "bad-argument"),
    ("control", {k: v for k, v in ORDER.items() if k != "id"}, "bad-argument"),
    ("control", {k: v for k, v in ORDER.items() if k != "pattern"}, "bad-argument"),
    ("control", ORDER | {"pattern": "a!b!c:["}, "bad-argument"),
]
for form in FORMATS:
    askers = {socket: Asker(socket, form) for socket, _, _ in EXPECTED}
    for socket, request, expected in EXPECTED:
        reply = askers[socket].reply(**request)
        assert code(reply) == expected, f"{form} {socket} {request}: {reply}"
        assert len(reply["error"]["message"]) < 1000
        if expected == "gone":
            assert reply["error"]["first_seq"] == 1, reply

# No request at all. What begins with `{` is answered in JSON, all else in MessagePack.
PACKED = msgpack.packb({"query": "health"})
for socket in ["query", "control", "cprocessd.sock", "feed-query", "ccollectd.sock"]:
    asker = Asker(socket)
    for frames in [
        (b"",), (b"\xff",), (b"health",), (PACKED[:-1],), (PACKED + b"\x00",), (b"[" + PACKED,), (PACKED, PACKED),
        (b"", PACKED), (msgpack.packb([PACKED]),), (b"\x81\xa1x" + b"\x91" * 5000,), (b"\xdf\xff\xff\xff\xff",),
    ]:
        reply = msgpack.unpackb(asker.raw(*frames))
        assert code(reply) == "undecodable", f"{socket} {frames}: {reply}"
    for text in [b"{", b'{"query": }', b'{"query": "health"} x', b'{"x": ' + b"[" * 5000, b'{"query": "\xff"}']:
        reply = json.loads(asker.raw(text))
        assert code(reply) == "undecodable", f"{socket} {text}: {reply}"
    # The same socket, right after.
    question = {"order": "forget"} if socket == "control" else {"query": "health"}
    assert asker.reply(**question)["ok"] is (socket != "control")

# A question beyond 64 KiB costs its sender the connection, and nobody else anything.
connect(zmq.DEALER, "query", RCVTIMEO=0).send(b"{" + b" " * (65 << 10))
counted = wait_for(
    "the too large question is counted", lambda: Asker("query").ask("health")["counters"].get("query.peer_dropped")
)
for socket in ["query", "control", "cprocessd.sock"]:
    # 11 + 5 above, and where the table says so.
    more = 2 * sum(1 for s, _, expected in EXPECTED if (s, expected) == (socket, "undecodable"))
    assert Asker("query").ask("health")["counters"][f"{socket}.undecodable"] == 16 + more, socket
for socket in ["feed-query", "ccollectd.sock"]:
    assert Asker("feed-query").ask("health")["counters"][f"{socket}.undecodable"] == 16, socket
