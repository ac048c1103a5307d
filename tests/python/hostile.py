"""Sends what no careful program would, by a real ZeroMQ library. `hostile.py plugins SOCKET` pushes, `hostile.py ask SOCKET`
asks and prints, per question, its name and the code of the error that answers it."""
import json
import math
import sys

import msgpack
import zmq


def nested(levels):
    return b"\x91" * levels + b"\xc0"


def field(name, raw):
    """A report with one field of raw bytes in the place of a good one."""
    fields = {b"service": b"\xa7hostile", b"msg_type": b"\xa2up", b"unit": b"\xa1u"}
    if name in (b"resource_type", b"values"):
        fields |= {b"msg_type": b"\xa5value", b"resource_type": b"\xa1r", b"values": b"\x81\xa1x\x01"}
    if name in (b"severity", b"data"):
        fields |= {b"msg_type": b"\xa5event", b"severity": b"\xa3ERR"}
    fields[name] = raw
    return bytes([0x80 + len(fields)]) + b"".join(bytes([0xA0 + len(k)]) + k + v for k, v in fields.items())


def bin32(data):
    return b"\xc6" + len(data).to_bytes(4, "big") + data


WRONG = [b"\xc0", b"\xc3", b"\xff", b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + b"\0" * 6, b"\x91\x01", b"\x81\xa1a\x01",
         b"\xc4\x01\xff", b"\xa2\xff\xfe", b"\xd4\x05\x01", b"\xa3a\nb", b"\xa0", nested(20), b"\xdb\xff\xff\xff\xff",
         b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc1"]


def reports():
    pack = msgpack.packb
    good = {"service": "hostile", "msg_type": "up", "unit": "good"}
    for name in (b"service", b"msg_type", b"unit", b"text", b"time", b"ttl_ms", b"resource_type", b"values", b"severity", b"data"):
        for raw in WRONG:
            yield [field(name, raw)]
    for frames in ([b""], [b"", b""], [pack(good)] * 2, [b"x"] * 500, [b"\x80"], [b"\x90"], [b"{}"], [b"\xc1"]):
        yield frames
    yield [b"\x81\xa1a" + nested(60_000)]
    yield [json.dumps({"a": None}).encode().replace(b"null", b"[" * 30_000 + b"]" * 30_000)]
    # Valid but for a value: mended, and counted.
    for time in (1_700_000_000, "2026-01-01T00:00:00Z", 1.5, -1, 2**63, 2**64 - 1, -(2**63), [], None):
        yield [pack(good | {"time": time})]
    for ttl in (0, 2**64 - 1, -1, "1s"):
        yield [pack(good | {"ttl_ms": ttl})]
    values = {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "u64": 2**64 - 1, "i64": -(2**63), "huge": 1.7e308}
    yield [pack({"service": "hostile", "msg_type": "value", "resource_type": "r", "unit": "u", "values": values})]
    many = {f"n{i}": i for i in range(3000)}
    yield [pack({"service": "hostile", "msg_type": "value", "resource_type": "r", "unit": "many", "values": many})]
    yield [b"\x84\xa7service\xa7hostile\xa8msg_type\xa5value\xadresource_type\xa1r\xa6values\x82\xa1x\x01\xa1x\x02"]
    # A key twice.
    yield [b"\x83\xa7service\xa7hostile\xa7service\xa5other\xa8msg_type\xa2up"]
    yield [b"\x83\xa7service\xa7hostile\xa8msg_type\xa2up\xa8msg_type\xa4down"]
    # Huge, and full of what a terminal would obey.
    yield [pack(good | {"unit": "text", "msg_type": "down", "text": "\u00fc" * 20_000})]
    yield [pack(good | {"unit": "escape", "msg_type": "down", "text": "\x1b[2J\r\nfake line\0\u202e"})]
    yield [pack(good | {"unit": "control\n"})]
    yield [pack(good | {"unit": "u" * 1025})]
    yield [pack({"service": "hostile", "msg_type": "event", "severity": "ERR", "unit": "e", "data": [1] * 50_000})]
    yield [pack({"service": "hostile", "msg_type": "event", "severity": "ERR", "unit": "e", "data": {b"\xff": "\ud800".encode("utf-8", "surrogatepass")}})]
    yield [field(b"data", bin32(b"\xff" * 50_000))]
    for service in ("machine", "port", "process", "alive"):
        yield [pack(good | {"service": service})]


def questions():
    pack = msgpack.packb
    for name in ("query", "order", "host", "pattern", "after", "epoch", "limit", "page", "id", "author"):
        for i, raw in enumerate(WRONG):
            yield f"{name} {i}", [b"\x81" + bytes([0xA0 + len(name)]) + name.encode() + raw]
        for i, value in enumerate((5, -1, 1.5, [], {}, True, "\0", 2**70)):
            yield f"json {name} {i}", [json.dumps({name: value}).encode()]
    yield "deep msgpack", [b"\x81\xa1a" + nested(10_000)]
    yield "deep json", [b'{"a":' + b"[" * 10_000]
    yield "deep json in a field", [b'{"query":' + b"[" * 5_000 + b"]" * 5_000 + b"}"]
    yield "open json", [b"{"]
    yield "bad utf-8 in json", [b'{"query":"\xff"}']
    yield "twice in json", [b'{"query":"health","query":"health"}']
    yield "huge number in json", [b'{"query":"events","after":1e400}']
    yield "no frame", [b""]
    yield "many frames", [b"x"] * 100
    yield "unknown", [pack({"query": "nonsense"})]
    yield "unknown, long", [pack({"query": "x" * 10_000})]
    yield "a bad pattern", [pack({"query": "last-value", "pattern": "[" * 1000})]
    yield "a costly pattern", [pack({"query": "last-value", "pattern": "*a" * 400 + "!x"})]
    yield "no such page", [pack({"query": "events", "page": "99.99"})]
    yield "no page", [pack({"query": "events", "page": "\0" * 100})]
    yield "beyond the journal", [pack({"query": "events", "after": 2**64 - 1, "limit": 2**64 - 1})]
    yield "an order without author", [pack({"order": "forget", "pattern": "*", "id": "1"})]
    yield "an order of control characters", [pack({"order": "forget", "pattern": "*", "id": "a\n", "author": "\x1b"})]


context = zmq.Context.instance()
way, path = sys.argv[1:]
if way == "plugins":
    socket = context.socket(zmq.PUSH)
    socket.set(zmq.LINGER, 20_000)
    socket.connect(f"ipc://{path}")
    sent = 0
    for frames in reports():
        socket.send_multipart(frames)
        sent += 1
    # Without this the interpreter ends before all is sent, whatever the linger.
    socket.close()
    context.term()
    print(json.dumps({"sent": sent}))
else:
    answers = {}
    socket = context.socket(zmq.REQ)
    socket.set(zmq.RCVTIMEO, 10_000)
    socket.set(zmq.LINGER, 0)
    socket.connect(f"ipc://{path}")
    for name, frames in questions():
        socket.send_multipart(frames)
        answer = socket.recv()
        reply = json.loads(answer) if answer[:1] == b"{" else msgpack.unpackb(answer, strict_map_key=False)
        answers[name] = "ok" if reply["ok"] else reply["error"]["code"]
    print(json.dumps(answers))
