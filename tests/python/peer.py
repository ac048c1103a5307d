"""What every foreign peer here needs: sockets with deadlines, conditions that are waited for, shapes of answers.

Nothing of Cairn is imported: this is what somebody with PROTOCOL.md, pyzmq and msgpack can write.
"""
import faulthandler
import json
import sys
import time
import uuid

import msgpack
import zmq

PATIENCE_S = 30
# A peer that hangs says where.
faulthandler.dump_traceback_later(150, exit=True)

RUN = sys.argv[1]
SEVERITIES = {"DEBUG", "INFO", "WARN", "ERR", "CRIT"}


def connect(kind, name, run=None, **options):
    """A socket to one of Cairn's, with a deadline for everything."""
    socket = zmq.Context.instance().socket(kind)
    socket.set(zmq.LINGER, PATIENCE_S * 1000)
    socket.set(zmq.RCVTIMEO, PATIENCE_S * 1000)
    socket.set(zmq.SNDTIMEO, PATIENCE_S * 1000)
    for option, value in options.items():
        socket.set(getattr(zmq, option), value)
    socket.connect(f"ipc://{run or RUN}/{name}")
    return socket


def wait_for(what, condition):
    """Polls until the condition gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def to_json(value):
    return json.dumps(value).encode()


FORMATS = {"MessagePack": (msgpack.packb, msgpack.unpackb), "JSON": (to_json, json.loads)}


class Asker:
    """A REQ socket and a way to write."""

    def __init__(self, name, form="MessagePack", run=None):
        self.socket = connect(zmq.REQ, name, run)
        self.pack, self.unpack = FORMATS[form]

    def raw(self, *frames):
        """The whole reply to these frames."""
        self.socket.send_multipart(frames)
        (answer,) = self.socket.recv_multipart()
        return answer

    def reply(self, **request):
        return self.unpack(self.raw(self.pack(request)))

    def ask(self, query, **arguments):
        """The data of the answer, all pages of it."""
        pages = list(self.pages(query=query, **arguments))
        whole = pages[0]
        for page in pages[1:]:
            if isinstance(whole, list):
                whole += page
            else:
                for name in whole:
                    if isinstance(whole[name], list):
                        whole[name] += page[name]
        return whole

    def pages(self, **request):
        while True:
            reply = self.reply(**request)
            assert reply["ok"] is True, reply
            yield reply["data"]
            if "next" not in reply:
                return
            request = {"page": reply["next"]}


def push(*reports, run=None):
    """PUSHes reports as a plugin does, and waits until they are on their way."""
    socket = connect(zmq.PUSH, "plugins", run)
    for report in reports:
        socket.send(msgpack.packb(report))
    socket.close()


def subscribe(name, *prefixes, run=None, **options):
    """A SUB socket whose subscriptions are known to be in force: `beat.` is the last of them, and has come."""
    socket = connect(zmq.SUB, name, run, **options)
    for prefix in (*prefixes, "beat."):
        socket.subscribe(prefix)
    while receive(socket)[0] != "beat.":
        pass
    return socket


def receive(socket):
    """The next message: its topic, and its payload as a list."""
    topic, payload = socket.recv_multipart()
    message = msgpack.unpackb(payload)
    return topic.decode(), message if isinstance(message, list) else [message]


def until(socket, wanted):
    """All messages up to the first for which `wanted(topic, message)` holds."""
    messages = []
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s; there were {[topic for topic, _ in messages]}"
        topic, batch = receive(socket)
        messages += [(topic, message) for message in batch]
        if any(wanted(topic, message) for message in batch):
            return messages


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def millis(value):
    """A time of the last ten minutes or the next."""
    return type(value) is int and abs(value - time.time() * 1000) < 600_000


def any_time(value):
    return type(value) is int


def one_of(*words):
    return lambda value: value in words


def or_none(shape):
    return lambda value: value is None or fits(value, shape)


def is_uuid(value):
    return uuid.UUID(value).version == 5


def fits(value, shape):
    """Whether a value has a shape; a dict shape names every field, those with `?` may be missing."""
    try:
        check(value, shape)
        return True
    except AssertionError:
        return False


def check(value, shape, where=""):
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{where} is no map: {value}"
        needed = {name for name in shape if not name.endswith("?")}
        known = {name.rstrip("?") for name in shape}
        assert needed <= set(value) <= known, f"{where} has fields {sorted(value)}, but must have {sorted(shape)}"
        for name, inner in shape.items():
            if name.rstrip("?") in value:
                check(value[name.rstrip("?")], inner, f"{where}.{name.rstrip('?')}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where} is no list: {value}"
        for i, item in enumerate(value):
            check(item, shape[0], f"{where}[{i}]")
    elif isinstance(shape, set):
        assert value in shape, f"{where} is {value!r}, but must be one of {sorted(shape)}"
    elif isinstance(shape, type):
        assert type(value) is shape, f"{where} is {value!r}, but must be {shape.__name__}"
    else:
        assert shape(value), f"{where} is {value!r}"


# PROTOCOL.md, Answers.
SERVER = {
    "host": str, "state": {"up", "down", "unknown"}, "since": any_time, "last_seen": millis,
    "severity": or_none(SEVERITIES), "checks": int, "open": int,
}
SERVICE = {
    "host": str, "service": str, "unit": str, "state": {"up", "down", "unknown"}, "since": any_time, "text": str,
}
DOWN = {
    "incident": is_uuid, "address": str, "rule": str, "severity": SEVERITIES, "since": any_time, "text": str,
    "acked": bool, "silenced": bool, "unreachable": bool, "kind?": str, "step?": int, "suppressed_by?": [str],
}
VALUE = {"address": str, "value": number, "time": millis, "stale": bool}
ALARM = {
    "name": str, "rule": str, "severity": SEVERITIES, "matches": int,
    "active": [{"address": str, "open": bool, "since": any_time, "value": or_none(number)}],
    "origin": {"file", "default", "order"}, "author?": str, "added?": millis,
}
ORDERED = {"text?": str, "addresses": [str], "unreached": [str]}
SILENCE = {
    "id": str, "pattern": str, "until": any_time, "since": millis, "author": str, "reason": str, "maintenance": bool,
    "open": int,
}
MAINTENANCE = {
    "name": str, "pattern": str, "when": str, "active_until": or_none(any_time), "next": [lambda pair: len(pair) == 2],
}
SUBSCRIBER = {
    "name": str, "via": str, "severity": SEVERITIES, "pattern": str, "author": str, "since": millis, "confirmed?": millis,
}
HEALTH = {
    "daemon": str, "version": str, "epoch": str, "head_seq": int, "rss_bytes": int, "peak_rss_bytes": int,
    "uptime_secs": int, "databases": [str], "counters": dict,
}
# PROTOCOL.md, the stream.
EVENT = {
    "epoch": str, "seq": int, "nth": int, "id": is_uuid, "incident": is_uuid,
    "kind": {
        "down", "up", "blip", "alarm", "solved", "absent", "retired", "log", "started", "stopped", "order", "silence",
        "ack", "revealed", "persistent", "flapping",
    },
    "address": str, "host": str, "service": str, "unit": str, "severity": SEVERITIES, "top_severity": SEVERITIES,
    "state": {"up", "down", "unknown", "open", "resolved"}, "since": any_time, "time": any_time, "text": str,
    "value?": number, "rule": str, "step?": int, "duration_ms?": int, "suppressed_by?": [str], "data?": lambda _: True,
}
# PROTOCOL.md, the feed.
ORIGIN = {"host": str, "epoch": str, "seq": int}
SAMPLE = {
    "host": str, "from": str, "service": str, "time": millis, "interval_ms": int, "resource": str, "unit": str,
    "values": lambda values: values and all(type(v) is float for v in values.values()), "backfill?": bool,
}
CHECK = {
    "host": str, "from": str, "service": str, "unit": str, "time": any_time, "interval_ms": int, "up": bool,
    "retries": int, "text": str, "changed": any_time, "backfill?": bool, "head_seq?": int, "epoch?": str, "seq?": int,
    "origin?": ORIGIN,
}
LOG = {
    "host": str, "from": str, "service": str, "unit": str, "time": any_time, "severity": SEVERITIES, "text": str,
    "data?": lambda _: True, "epoch": str, "seq": int, "origin": ORIGIN,
}
ALIVE = {
    "host": str, "time": millis, "via": [str], "inventory": str, "addresses?": [str], "goodbye?": bool, "epoch?": str,
    "seq?": int, "origin?": ORIGIN,
}
BEAT = {"time": millis, "epoch": str, "head_seq": int, "host?": str, "nth?": dict}
FEED = {"value": SAMPLE, "check": CHECK, "event": LOG, "alive": ALIVE, "beat": BEAT}
