"""PUSHes the messages of 2013 and what was added to them, and sees by REQ what became of each."""
from peer import *

query = Asker("query")


def states():
    return {(r["service"], r["unit"]): r for r in query.ask("service-list")}


def events(unit):
    return [e for e in query.ask("events", after=0)["events"] if e["unit"] == unit]


def plugins_counter(reason):
    return Asker("ccollectd.sock").ask("health")["counters"].get(f"plugins.{reason}", 0)


# The four messages of 2013, in the order their plugin sent them when it started.
push(
    {"service": "nginx", "msg_type": "value", "resource_type": "http", "unit": "all", "values": {"rps": 5, "busy": 0.5}},
    {"service": "nginx", "msg_type": "up", "unit": "all", "initial": True},
    {"service": "nginx", "msg_type": "down", "unit": "vhost", "initial": True},
    {"service": "nginx", "msg_type": "up", "unit": "log", "initial": False},
    {"service": "nginx", "msg_type": "blip", "unit": "log"},
)
wait_for("all three units are known", lambda: len(states()) == 3)
assert states()["nginx", "all"]["state"] == "up" and states()["nginx", "vhost"]["state"] == "down"
values = {r["address"]: r for r in query.ask("last-value", pattern="*!nginx")}
assert values["testhost!nginx.http:all.rps"]["value"] == 5 and values["testhost!nginx.http:all.busy"]["value"] == 0.5
# Nobody knows when the next is due, so none is stale.
assert not any(r["stale"] for r in values.values())
wait_for("the blip is said", lambda: [e["kind"] for e in events("log")] == ["up", "blip"])
assert [(e["kind"], e["rule"], e["severity"]) for e in events("all")] == [("up", "initial", "DEBUG")]
assert [(e["kind"], e["rule"], e["severity"]) for e in events("vhost")] == [("down", "check", "ERR")]
assert events("log")[1]["severity"] == "WARN"
push({"service": "nginx", "msg_type": "up", "unit": "vhost"})
wait_for("the outage is over", lambda: [e["kind"] for e in events("vhost")] == ["down", "up"])

# A time is the observer's, if it is one.
began = int(time.time() * 1000) - 3_600_000
push({"service": "app", "msg_type": "down", "unit": "dated", "time": began, "text": "an hour ago"})
(row,) = wait_for("it is down", lambda: [r for r in query.ask("down-list") if r["address"] == "testhost!app:dated"])
assert (row["since"], row["text"]) == (began, "an hour ago"), row
for i, wrong in enumerate([began // 1000, "yesterday", 1.5e12, began - 86_400_000]):
    push({"service": "app", "msg_type": "down", "unit": f"wrong{i}", "time": wrong})
    (event,) = wait_for("it is said", lambda: events(f"wrong{i}"))
    assert millis(event["since"]) and event["since"] > began + 3_000_000, event
assert plugins_counter("bad_time") == 4

# A promise to be heard of, broken: what a cron job's heartbeat is for.
push({"service": "backup", "msg_type": "up", "unit": "nightly", "ttl_ms": 1000, "text": "done"})
wait_for("the silence is noticed", lambda: [e["kind"] for e in events("nightly")] == ["up", "down"])
assert events("nightly")[1]["text"] == "no report for 1.0s"
# Any report of the unit is a sign of life, a number too; the state it last had is its state again.
push({"service": "backup", "msg_type": "value", "resource_type": "job", "unit": "nightly", "values": {"bytes": 7}, "ttl_ms": 60_000})
wait_for("it reports again", lambda: [e["kind"] for e in events("nightly")] == ["up", "down", "up"])

# An event with an attachment, which may be anything.
push({"service": "app", "msg_type": "event", "unit": "log", "severity": "ERR", "text": "x" * 2000, "data": [1, b"\xff", {"a": None}]})
event = wait_for("the event is said", lambda: [e for e in events("log") if e["kind"] == "log"])[0]
assert event["text"] == "x" * 1024 and event["data"] == [1, b"\xff", {"a": None}] and event["severity"] == "ERR"

# What cannot be taken is counted, and the next is taken.
socket = connect(zmq.PUSH, "plugins")
socket.send(b"\xc1")
socket.send(b'{"service": "json", "msg_type": "up", "unit": "none"}')
socket.send(msgpack.packb({"service": "a b", "msg_type": "up"}))
socket.send_multipart([msgpack.packb({"service": "a", "msg_type": "up"})] * 2)
for service in ["machine", "port", "process", "alive"]:
    socket.send(msgpack.packb({"service": service, "msg_type": "up", "unit": "mine"}))
socket.send(msgpack.packb({"service": "app", "msg_type": "up", "unit": "zero", "ttl_ms": 0}))
socket.send(msgpack.packb({"service": "app", "msg_type": "value", "resource_type": "r", "unit": "", "values": {"nan": float("nan"), "one": 1}}))
deep = []
for _ in range(16):
    deep = [deep]
socket.send(msgpack.packb({"service": "app", "msg_type": "event", "severity": "INFO", "data": deep}))
socket.send(msgpack.packb({"service": "app", "msg_type": "up", "unit": "last"}))
wait_for("the last one is known", lambda: ("app", "last") in states())
counted = {reason: plugins_counter(reason) for reason in ["undecodable", "frames", "reserved", "bad_ttl", "not_finite", "data_too_deep"]}
assert counted == {"undecodable": 3, "frames": 1, "reserved": 4, "bad_ttl": 1, "not_finite": 1, "data_too_deep": 1}, counted
assert [r["address"] for r in query.ask("last-value", pattern="*!app")] == ["testhost!app.r:.one"]
assert not {service for service, _ in states()} & {"json", "a", "machine", "port", "process", "alive"}

# An order: it has an id, so the same one twice is carried out once.
control = Asker("control")
order = {"order": "forget", "pattern": "*!nginx", "id": str(uuid.uuid4()), "author": "foreign.py"}
first, again = control.reply(**order), control.reply(**order)
assert first == again and first["ok"], (first, again)
check(first["data"], ORDERED, "forget")
assert "testhost!nginx:vhost" in first["data"]["addresses"] and first["data"]["unreached"] == []
assert not [unit for service, unit in states() if service == "nginx"]
(event,) = [e for e in query.ask("events", after=0)["events"] if e["kind"] == "order"]
assert event["id"] == str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "cairn"), f"{order['id']} order"))
