"""Asks every question there is, in both formats, and looks at the answers."""
from peer import *

for report in [
    {"service": "mail", "msg_type": "value", "resource_type": "queue", "unit": "out", "values": {"length": 250}},
    {"service": "nginx", "msg_type": "down", "unit": "all", "text": "no answer"},
    {"service": "app", "msg_type": "event", "unit": "", "severity": "WARN", "text": "slow", "data": {"ms": [1, b"\x00"]}},
]:
    push(report)

# Somebody has ordered something, so that no list is empty.
control = Asker("control")
later = int(time.time() * 1000) + 3_600_000
for order in [
    {"order": "silence", "pattern": "*!nginx", "until": later, "reason": "new certificates"},
    {"order": "subscriber-add", "name": "alice", "via": "mail", "severity": "ERR", "pattern": "*"},
    {"order": "subscriber-confirm", "name": "alice", "via": "mail"},
    {"order": "rule-add", "name": "mail stuck", "rule": "*!mail.queue:*.length > 300 ERR"},
]:
    check(control.reply(id=str(uuid.uuid4()), author="alice", **order)["data"], ORDERED, order["order"])

setup = Asker("query")
wait_for("four incidents are open", lambda: len(setup.ask("down-list")) == 4)
wait_for("the log event is said", lambda: any(e["kind"] == "log" for e in setup.ask("events", after=0)["events"]))

for form in FORMATS:
    cprocessd = Asker("query", form)

    servers = cprocessd.ask("server-list")
    check(servers, [SERVER], "server-list")
    (server,) = servers
    assert (server["host"], server["state"], server["severity"]) == ("testhost", "up", "CRIT"), server
    # www, gone, nginx; of these two are down, and two alarms are open.
    assert (server["checks"], server["open"]) == (3, 4), server

    status = cprocessd.ask("server-status", host="testhost")
    check(status, {"server": SERVER, "services": [SERVICE], "incidents": [DOWN], "values": [VALUE]}, "server-status")
    assert len(status["services"]) == 3 and len(status["incidents"]) == 4
    assert any(row["address"] == "testhost!machine.uptime:.uptime" for row in status["values"])

    services = cprocessd.ask("service-list")
    check(services, [SERVICE], "service-list")
    states = {(row["service"], row["unit"]): (row["state"], row["text"]) for row in services}
    assert states["port", "www (http)"][0] == "up" and states["port", "gone"][0] == "down", states
    assert states["nginx", "all"] == ("down", "no answer"), states
    assert cprocessd.ask("service-list", host="testhost") == services
    assert cprocessd.reply(query="service-list", host="nobody")["error"]["code"] == "not-found"

    down = cprocessd.ask("down-list")
    check(down, [DOWN], "down-list")
    known = {(row["address"], row["rule"]): row for row in down}
    assert set(known) == {
        ("testhost!port:gone", "check"), ("testhost!nginx:all", "check"),
        ("testhost!mail.queue:out.length", "queue long"), ("testhost!backup:nightly", "no backup"),
    }, known
    assert down[0]["rule"] == "no backup" and down[0]["severity"] == "CRIT", "worst first"
    assert known["testhost!nginx:all", "check"]["text"] == "no answer"

    values = cprocessd.ask("last-value", pattern="*!mail.queue")
    check(values, [VALUE], "last-value")
    (value,) = values
    assert (value["address"], value["value"], value["stale"]) == ("testhost!mail.queue:out.length", 250, False), value
    load = cprocessd.ask("last-value", pattern="testhost!machine.load_average:.1m")
    assert len(load) == 1 and load[0]["value"] >= 0, load
    assert cprocessd.ask("last-value", pattern="*!nothing") == []

    alarms = cprocessd.ask("alarm-list")
    check(alarms, [ALARM], "alarm-list")
    alarms = {row["name"]: row for row in alarms}
    assert alarms["memory gone"]["matches"] == 1 and alarms["memory gone"]["active"] == [], alarms
    (active,) = alarms["queue long"]["active"]
    assert active["open"] and active["value"] == 250, active
    assert alarms["queue long"]["rule"] == "*!mail.queue:*.length > 100 WARN"
    (active,) = alarms["no backup"]["active"]
    assert active["open"] and active["value"] is None, active

    (silence,) = cprocessd.ask("silence-list")
    check(silence, SILENCE, "silence-list")
    assert (silence["pattern"], silence["until"], silence["open"]) == ("*!nginx", later, 1), silence
    check(cprocessd.ask("maintenance-list"), [MAINTENANCE], "maintenance-list")
    (subscriber,) = cprocessd.ask("subscriber-list")
    check(subscriber, SUBSCRIBER, "subscriber-list")
    assert alarms["mail stuck"]["origin"] == "order" and alarms["mail stuck"]["author"] == "alice", alarms
    explained = cprocessd.ask("explain", pattern="testhost!nginx:all")
    rule = {"name": str, "rule": str, "phase": str, "since": or_none(any_time)}
    check(
        explained,
        {
            "address": str, "state": {"up", "down", "unknown", "open", "resolved"}, "since": or_none(any_time),
            "why": [str], "last": or_none(str), "incidents": [DOWN], "rules": [rule], "suppressed_by": [str],
            "depends_on": [lambda pair: len(pair) == 2],
        },
        "explain",
    )
    assert explained["state"] == "down" and explained["suppressed_by"] == ["silence:" + silence["id"]], explained
    assert cprocessd.reply(query="explain", pattern="testhost!nothing:x")["error"]["code"] == "not-found"
    assert cprocessd.ask("explain", pattern="testhost")["state"] == "up"

    events = cprocessd.ask("events", after=0)
    check(events, {"epoch": str, "head_seq": int, "events": [EVENT | {"topic": str}]}, "events")
    assert [e["seq"] for e in events["events"]] == list(range(1, events["head_seq"] + 1))
    for event in events["events"]:
        assert event["topic"] == f"event.{event['top_severity']}.{event['host']}!", event
        assert event["epoch"] == events["epoch"]
    (log,) = [e for e in events["events"] if e["kind"] == "log"]
    assert log["data"] == {"ms": [1, b"\x00" if form == "MessagePack" else "AA=="]}, log
    limited = cprocessd.ask("events", after=1, limit=2, epoch=events["epoch"])
    assert [e["seq"] for e in limited["events"]] == [2, 3] and limited["head_seq"] == events["head_seq"]
    at_head = cprocessd.ask("events", after=events["head_seq"])
    assert at_head["events"] == [], at_head

    snapshot = cprocessd.ask("snapshot")
    check(
        snapshot, {"epoch": str, "seq": int, "hosts": [SERVER], "checks": [SERVICE], "incidents": [DOWN]}, "snapshot"
    )
    assert (snapshot["epoch"], snapshot["seq"]) == (events["epoch"], events["head_seq"])
    assert snapshot["checks"] == services and snapshot["incidents"] == down, (snapshot["incidents"], down)

    for socket in ["query", "cprocessd.sock"]:
        health = Asker(socket, form).ask("health")
        check(health, HEALTH, f"{socket} health")
        assert (health["daemon"], health["epoch"], health["head_seq"]) == (
            "cprocessd", events["epoch"], events["head_seq"],
        ), health
        assert 1 << 20 < health["rss_bytes"] <= health["peak_rss_bytes"] < 64 << 20, health

    feed = Asker("feed-query", form)
    entries = feed.ask("events", after=0)
    check(entries, {"epoch": str, "head_seq": int, "events": [dict]}, "feed events")
    assert [e["seq"] for e in entries["events"]] == list(range(1, entries["head_seq"] + 1))
    for entry in entries["events"]:
        kind, _, rest = entry.pop("topic").partition(".")
        assert rest == "testhost!"
        check(entry, FEED[kind] | {"time": any_time}, f"feed events: {kind}")
        assert entry["origin"] == {"host": "testhost", "epoch": entries["epoch"], "seq": entry["seq"]}

    snapshot = feed.ask("snapshot")
    host = {"host": str, "via": [str], "inventory": [str], "hash": str}
    check(snapshot, {"epoch": str, "seq": int, "hosts": [host], "checks": [CHECK]}, "feed snapshot")
    assert snapshot["hosts"][0]["inventory"] == ["testhost!port:gone", "testhost!port:www (http)"], snapshot["hosts"]
    assert len(snapshot["checks"]) == 3 and all("seq" not in row for row in snapshot["checks"])

    for socket in ["feed-query", "ccollectd.sock"]:
        health = Asker(socket, form).ask("health")
        check(health, HEALTH, f"{socket} health")
        assert (health["daemon"], health["epoch"]) == ("ccollectd", entries["epoch"]), health
