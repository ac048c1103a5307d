"""A ccollectd of many hosts: storm.py RUN_DIR HOSTS CHECKS. Each line of its input, `UNITS STATE RATE`, changes these checks of
all hosts to a state, so many a second; a line of output ends it. UNITS is `FROM-TO`, or `core`, which is
the last of the first host.

It keeps no journal: what a subscriber missed it says again with all other states, as ccollectd does."""
import os
import select
import sys
import time
import uuid

import msgpack
import zmq

run, hosts, checks = sys.argv[1], [f"web{n:02}" for n in range(int(sys.argv[2]))], int(sys.argv[3])
epoch = uuid.uuid4().hex[:16]
context = zmq.Context()
feed, query = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
feed.set(zmq.SNDHWM, 100_000), feed.set(zmq.LINGER, 0), query.set(zmq.LINGER, 0)
feed.bind(f"ipc://{run}/feed"), query.bind(f"ipc://{run}/feed-query")
pack = msgpack.packb
HEAD = {"epoch": epoch, "seq": 0}
ANSWERS = {
    "snapshot": HEAD | {"hosts": [], "checks": []},
    "events": {"epoch": epoch, "head_seq": 0, "events": []},
}
states = {(host, f"unit{n:03}"): (True, 0) for host in hosts for n in range(checks)}
del states[hosts[0], f"unit{checks - 1:03}"]
states[hosts[0], "core"] = (True, 0)


def now():
    return int(time.time() * 1000)


def check(host, unit):
    up, changed = states[host, unit]
    return {"host": host, "from": "lab", "service": "drill", "unit": unit, "time": now(), "interval_ms": 0, "up": up, "retries": 0,
            "text": "answers" if up else "connection refused", "changed": changed}


def alive(host):
    message = {"host": host, "time": now(), "via": [] if host == "lab" else ["lab"], "inventory": "0", "goodbye": False}
    feed.send_multipart([f"alive.{host}!".encode(), pack(message)])


def repeat():
    for host in hosts:
        batch = [check(host, unit) for (of, unit) in states if of == host]
        feed.send_multipart([f"check.{host}!".encode(), pack(batch)])


def tick():
    """What a ccollectd says each second, and its answers."""
    global beat_at, repeat_at
    while query.poll(0):
        *route, question = query.recv_multipart()
        answer = ANSWERS.get(msgpack.unpackb(question).get("query"))
        error = {"ok": False, "error": {"code": "unknown_request", "message": "not modelled"}}
        query.send_multipart([*route, pack({"ok": True, "data": answer} if answer else error)])
    if time.monotonic() >= beat_at:
        beat_at = time.monotonic() + 1
        feed.send_multipart([b"beat.", pack({"time": now(), "epoch": epoch, "head_seq": 0, "host": "lab"})])
        for host in ["lab", *hosts]:
            alive(host)
    if time.monotonic() >= repeat_at:
        repeat_at = time.monotonic() + 5
        repeat()


def change(units, state, rate):
    first, last = (0, 0) if units == "core" else map(int, units.split("-"))
    wanted = [(hosts[0], "core")] if units == "core" else [
        (host, f"unit{n:03}") for n in range(first, last) for host in hosts if (host, f"unit{n:03}") in states]
    began = time.monotonic()
    for nth, (host, unit) in enumerate(wanted):
        while time.monotonic() < began + nth / rate:
            tick()
            time.sleep(0.001)
        states[host, unit] = (state == "up", now())
        feed.send_multipart([f"check.{host}!".encode(), pack(check(host, unit))])


beat_at = repeat_at = 0
for key in states:
    states[key] = (True, now())
print("ready", flush=True)
line = b""
while True:
    tick()
    if select.select([sys.stdin], [], [], 0.05)[0]:
        # Not by lines of Python's own, which would hide from select what it has read ahead.
        read = os.read(0, 4096)
        if not read:
            sys.exit()
        line += read
        while b"\n" in line:
            order, line = line.split(b"\n", 1)
            units, state, rate = order.decode().split()
            change(units, state, float(rate))
            print("done", flush=True)
