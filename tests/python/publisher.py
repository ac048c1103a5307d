"""Publishes as no cprocessd would: publisher.py RUN_DIR. Each line of its input names a phase; a line of output ends it.

Between the phases it is a good publisher: beats each half second, answers, and its journal has what it said.
"""
import itertools
import os
import select
import sys
import time
import uuid

import msgpack
import zmq

run = sys.argv[1]
context = zmq.Context()
stream, query = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
stream.set(zmq.LINGER, 0), query.set(zmq.LINGER, 0)
stream.bind(f"ipc://{run}/stream"), query.bind(f"ipc://{run}/query")

pack = msgpack.packb
SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "cairn")
ERR, BEAT = b"event.ERR.liar!", b"beat."
I64, U64 = 2**63 - 1, 2**64 - 1
NIL = b"\xc0"


def now():
    return int(time.time() * 1000)


def new_journal():
    global epoch, journal
    epoch, journal = uuid.uuid4().hex[:16], []


def event(unit, kind="down", host="liar", severity="ERR", **more):
    address = more.get("address", f"{host}!drill:{unit}")
    incident = str(uuid.uuid5(SPACE, address))
    since = now()
    return {
        "epoch": epoch, "seq": len(journal) + 1, "nth": 1, "id": str(uuid.uuid5(SPACE, f"{incident} {kind} {time.time_ns()}")),
        "incident": incident, "kind": kind, "address": address, "host": host, "service": "drill", "unit": unit,
        "severity": severity, "top_severity": severity, "state": kind, "since": since, "time": since, "text": "a drill",
        "rule": "check",
    } | more


def publish(message, topic=ERR):
    """Said, and in the journal, where what could never be answered has lost all but its place."""
    said, topic_field = pack(message), {"topic": topic.decode()}
    journal.append(pack(message | topic_field) if len(said) < 200_000 else pack({"seq": message["seq"]} | topic_field))
    stream.send_multipart([topic, said])


def beat(**more):
    stream.send_multipart([BEAT, pack({"time": now(), "epoch": epoch, "head_seq": len(journal)} | more)])


def array(rows):
    """A list of what is packed already."""
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def whole(data):
    return b"\x82\xa2ok\xc3\xa4data" + data


def refused(code, message="no", **more):
    return pack({"ok": False, "error": {"code": code, "message": message} | more})


def events(after, asked_epoch):
    if after > len(journal) or asked_epoch not in (None, epoch):
        return refused("gone", first_seq=1)
    rows, size = journal[after:after + 1000], 0
    while rows and sum(map(len, rows)) > 250_000:
        rows = rows[: len(rows) // 2 or 1]
        if len(rows) == 1:
            break
    return whole(b"\x83\xa5epoch" + pack(epoch) + b"\xa8head_seq" + pack(len(journal)) + b"\xa6events" + array(rows))


def host_row(name):
    return {"host": name, "state": "up", "since": now(), "last_seen": now(), "severity": None, "checks": 1, "open": 0}


def incident_row(n, **more):
    address = f"liar!drill:{n}"
    return {
        "incident": str(uuid.uuid5(SPACE, address)), "address": address, "rule": "check", "severity": "ERR", "since": now(),
        "text": "a drill", "acked": False, "silenced": False, "unreachable": False,
    } | more


def snapshot(**more):
    return {"epoch": epoch, "seq": len(journal), "hosts": [host_row("good")], "checks": [], "incidents": []} | more


def answer(request):
    """The good answer."""
    name = request.get("query")
    if name == "snapshot":
        return whole(pack(snapshot()))
    if name == "events":
        return events(request.get("after", 0), request.get("epoch"))
    if name == "server-list":
        return whole(pack([host_row("good")]))
    if name == "down-list":
        return whole(pack([]))
    return refused("unknown-request")


def serve(answers=answer):
    """Answers whatever was asked."""
    asked = 0
    while query.poll(0):
        *route, question = query.recv_multipart()
        request = msgpack.unpackb(question)
        query.send_multipart([*route, answers(request)])
        asked += request.get("query") == "snapshot"
    return asked


def serve_for(seconds, answers=answer):
    """A good publisher for a while."""
    asked, due = 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked += serve(answers)
        if time.monotonic() > due:
            beat()
            due = time.monotonic() + 0.5
        query.poll(10)
    return asked


def garbage():
    """What is no message."""
    noise = os.urandom(100_000)
    event_map = pack(event("x"))
    payloads = [b"", NIL, b"\xc1", b"{}", b"\x80", b"\x90", noise, b"\x91" * 60_000, b"\x81\xa1a" + b"\x91" * 60_000 + NIL, event_map[:-1],
                event_map + NIL, b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", pack([event("x")] * 2), pack("x" * 100_000),
                b"\xdd" + (4_000_000).to_bytes(4, "big") + b"\x80" * 4_000_000, b"\xdd" + (4_000_000).to_bytes(4, "big") + NIL * 4_000_000]
    for topic in (ERR, b"event.", b"event." + b"t" * 1_000_000, b"event.\x1b[2J\r\nfake line", b"event.\xff", b"value.liar!", BEAT, BEAT + b"x" * 1000):
        for payload in payloads:
            stream.send_multipart([topic, payload])
            serve_for(0.005)
    for frames in ([ERR], [ERR, event_map, event_map], [ERR] + [b"x"] * 300, [b""], [b"", b""]):
        stream.send_multipart(frames)
    for wrong in (NIL, pack(-1), pack(1.5), pack("1"), pack([]), pack({}), b"\xd4\x05\x01", b"\xa2\xff\xfe", b"\xc4\x01\xff"):
        for field in event("x"):
            fields = {pack(k): pack(v) for k, v in event("x").items()} | {pack(field): wrong}
            stream.send_multipart([ERR, bytes([0xDE, 0, len(fields)]) + b"".join(k + v for k, v in fields.items())])
        for field in ("time", "epoch", "head_seq", "host", "nth"):
            fields = {pack("time"): pack(1), pack("epoch"): pack(epoch), pack("head_seq"): pack(0)} | {pack(field): wrong}
            stream.send_multipart([BEAT, bytes([0x80 + len(fields)]) + b"".join(k + v for k, v in fields.items())])
    serve_for(0.5)
    # Endless, and as large as may be; and larger.
    for _ in range(60):
        stream.send_multipart([ERR, noise * 39])
        stream.send_multipart([b"value.liar!", noise * 39])
        serve_for(0.01)
    stream.send_multipart([ERR, noise * 60])
    serve_for(1)


def lies():
    """Messages whose fields lie. Each is in the journal, or it would only be a gap."""
    huge = "ü" * 1_500_000
    for n, more in enumerate((
        {"host": "other"}, {"service": "other"}, {"unit": "other"}, {"address": "other!x.y:z.a"},
        {"since": I64}, {"since": -I64 - 1}, {"time": I64}, {"time": -I64 - 1}, {"since": -I64 - 1, "time": I64}, {"since": I64, "time": -I64 - 1},
        {"duration_ms": U64}, {"duration_ms": 0}, {"value": float("nan")}, {"value": float("inf")}, {"nth": U64}, {"nth": 0},
        {"kind": "nonsense"}, {"kind": "up", "duration_ms": U64}, {"kind": "watchdog", "state": "open"}, {"kind": "watchdog", "duration_ms": 5},
        {"severity": "DEBUG", "top_severity": "CRIT"}, {"state": "resolved"}, {"rule": ""}, {"rule": "\0\n\x1b"}, {"rule": "watchdog"}, {"rule": "test"},
        {"rule": "r" * 1_000_000}, {"text": huge}, {"text": "\x1b[2J\r\n\0\u202e\u2028" * 1000}, {"text": ""},
        {"data": [None] * 2_000_000}, {"data": {"x": "y" * 3_000_000}}, {"data": [[[[]]]] * 100_000}, {"from_the_future": huge},
    )):
        publish(event(f"lie {n}") | more)
        serve_for(0.03)
    # The same, once more as copies and as ends.
    for n in range(20):
        publish(event(f"lie {n}", kind="up", duration_ms=U64, since=-I64 - 1))
    serve_for(0.2)
    for seq in (0, U64, I64, I64 + 1):
        stream.send_multipart([ERR, pack(event("seq") | {"seq": seq})])
        serve_for(0.1)
    for head in (U64, I64, I64 + 1):
        beat(head_seq=head)
        serve_for(0.1)
    # Each message says that it is of another journal.
    for n in range(300):
        stream.send_multipart([ERR, pack(event(f"journal {n}") | {"epoch": f"e{n}"})])
        serve()
    serve_for(0.5)


def texts():
    """More to tell than anybody can read, each as large as may pass."""
    for n in range(600):
        publish(event(f"text {n}", text="ü" * 60_000, data="y" * 60_000))
        serve()
    serve_for(1)


def flood(count=int(os.environ.get("CAIRN_FLOOD", 13_000))):
    """Addresses without end, with the longest units there are."""
    tail = "u" * 900
    for n in range(count):
        publish(event(f"{n} {tail}" if n % 10 == 0 else str(n), host=f"liar{n % 7000}"))
        if n % 100 == 0:
            serve()
    beat()


def snapshots():
    """Answers that are none."""
    nils = b"\xdd" + (15_000_000).to_bytes(4, "big") + NIL * 15_000_000
    endless = whole(pack(snapshot(incidents=[incident_row(n) for n in range(900)])))
    endless = b"\x83" + endless[1:] + pack("next") + pack("again")
    nonsense = [
        b"", b"\xc1", os.urandom(1000), NIL, b"\x80", pack({"ok": True}), pack({"ok": True, "data": None}), whole(b"\x91" * 60_000),
        whole(nils), whole(pack({"epoch": epoch})), whole(pack(snapshot(epoch="x" * 100))), whole(pack(snapshot(seq=-1))),
        refused("gone", "\x1b[2J\r\n" * 50_000), refused("nonsense"), whole(pack(snapshot(incidents=[{"x": 1}]))), whole(pack(snapshot(incidents=nils[:200_000]))),
        whole(pack(snapshot(seq=U64))), whole(pack(snapshot(incidents=[incident_row(n, rule="r" * 500) for n in range(25_000)]))), endless,
        whole(pack(snapshot(seq=I64, incidents=[incident_row(n, since=(-1) ** n * I64, text="\"" * 2000) for n in range(300)]))),
    ]
    said = itertools.count()

    def bad(request):
        if request.get("query") == "events" and "page" not in request:
            return refused("gone", first_seq=1)
        if request.get("page"):
            return endless
        if request.get("query") == "snapshot":
            n = next(said)
            return nonsense[n // 4 % len(nonsense)]
        return whole(pack([incident_row(n) for n in range(2000)]))

    new_journal()
    beat()
    end = time.monotonic() + 12
    while next(said) < 4 * len(nonsense) and time.monotonic() < end:
        serve_for(0.2, bad)
        new_journal()
    new_journal()
    serve_for(1)


def good():
    """What is still true."""
    publish(event("still true", host="good", severity="CRIT", text="still true"), b"event.CRIT.good!")
    serve_for(0.2)


new_journal()
PHASES = {"garbage": garbage, "lies": lies, "texts": texts, "flood": flood, "snapshots": snapshots, "good": good}
print("ready", flush=True)
while True:
    serve_for(0.1)
    if select.select([0], [], [], 0)[0]:
        read = os.read(0, 1000)
        if not read:
            break
        for name in read.decode().split():
            PHASES[name]()
            print(name, flush=True)
