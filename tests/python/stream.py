"""Subscribes to parts of the stream, and notices what it did not get. Two hosts: web1 and web10."""
from peer import *

WEB10 = sys.argv[2]
SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "cairn")


def down(unit, run=None):
    push({"service": "drill", "msg_type": "down", "unit": unit, "text": "pushed"}, run=run)


query = Asker("query")
wait_for("both hosts are up", lambda: {r["host"] for r in query.ask("server-list") if r["state"] == "up"} == {"web1", "web10"})
everything = subscribe("stream", "event.")
severe = subscribe("stream", "event.ERR.", "event.CRIT.")
web1 = subscribe("stream", "event.ERR.web1!")
values = subscribe("stream", "value.web10!")

# A prefix that ends in `!` is one host.
down("one", WEB10)
down("two")
down("three", WEB10)
wait_for("all are said", lambda: len(query.ask("down-list")) == 3)
down("four")
seen = until(web1, lambda topic, message: message.get("unit") == "four")
events = [message for topic, message in seen if topic != "beat."]
assert [(e["host"], e["unit"]) for e in events] == [("web1", "two"), ("web1", "four")], events
assert {topic for topic, _ in seen} <= {"event.ERR.web1!", "beat."}

# Who takes some severities knows by `nth` that it has all of them.
push({"service": "drill", "msg_type": "event", "unit": "", "severity": "CRIT", "text": "fire"})
seen = until(severe, lambda topic, message: topic.startswith("event.CRIT."))
push({"service": "drill", "msg_type": "up", "unit": "two"})
# The end of an ERR is under ERR, although it is itself an INFO.
seen += until(severe, lambda topic, message: message.get("kind") == "up")
seen += until(severe, lambda topic, message: topic == "beat.")
had = {"ERR": 0, "CRIT": 0}
for topic, message in seen:
    if topic == "beat.":
        check(message, BEAT | {"nth": dict}, "beat")
        # In order: a beat never counts an event that has not come yet.
        assert all(message["nth"].get(severity, 0) == n for severity, n in had.items()), (message, had)
    else:
        check(message, EVENT, topic)
        assert topic == f"event.{message['top_severity']}.{message['host']}!"
        had[message["top_severity"]] += 1
        assert message["nth"] == had[message["top_severity"]], message
assert had == {"ERR": 5, "CRIT": 1}, had
last = [message for topic, message in seen if topic != "beat."][-1]
assert (last["kind"], last["severity"], last["state"], last["unit"]) == ("up", "INFO", "up", "two"), last
assert last["duration_ms"] == last["time"] - last["since"]

# Deaf for a moment: the beat shows that something is missing, the journal has it.
severe.unsubscribe("event.ERR.")
down("missed")
wait_for("it is said", lambda: len(query.ask("down-list")) == 4)
beat = until(severe, lambda topic, message: topic == "beat." and message["nth"]["ERR"] > had["ERR"])[-1][1]
missing = [e for e in query.ask("events", after=last["seq"], epoch=beat["epoch"])["events"] if e["topic"].startswith("event.ERR.")]
assert [(e["unit"], e["nth"]) for e in missing] == [("missed", had["ERR"] + 1)], missing
assert beat["nth"]["ERR"] == had["ERR"] + len(missing)

# The stream is the journal: the same events, consecutive, and their ids are what anybody can compute.
seen = until(everything, lambda topic, message: message.get("unit") == "missed")
told = [message for topic, message in seen if topic != "beat."]
assert [e["seq"] for e in told] == list(range(told[0]["seq"], told[0]["seq"] + len(told)))
assert told == [
    {k: v for k, v in e.items() if k != "topic"} for e in query.ask("events", after=told[0]["seq"] - 1)["events"]
]
(origin,) = [e["origin"] for e in Asker("feed-query").ask("events", after=0)["events"] if e["topic"] == "event.web1!"]
for event in query.ask("events", after=0)["events"]:
    assert event["incident"] == str(uuid.uuid5(SPACE, f"{event['address']} {event['rule']} {event['since']}")), event
    if event["kind"] == "log":
        name = f"{origin['host']} {origin['epoch']} {origin['seq']} log"
    else:
        name = f"{event['incident']} {event['kind']} 1"
    assert event["id"] == str(uuid.uuid5(SPACE, name)), event

# Samples of one host, as its ccollectd published them.
seen = until(values, lambda topic, message: message.get("resource") == "uptime")
samples = [(topic, message) for topic, message in seen if topic != "beat."]
for topic, sample in samples:
    assert topic == "value.web10!" and sample["host"] == sample["from"] == "web10"
    check(sample, SAMPLE, topic)
    assert sample["interval_ms"] == 1000

# The feed itself: every message of it has its shape.
feed = subscribe("feed", "value.", "check.", "event.", "alive.")
down("five")
seen = until(feed, lambda topic, message: message.get("unit") == "five" and "seq" in message)
seen += until(feed, lambda topic, message: topic == "alive.web1!")
seen += until(feed, lambda topic, message: topic == "beat.")
for topic, message in seen:
    check(message, FEED[topic.split(".")[0]], topic)
    assert topic == "beat." or topic.endswith(".web1!"), topic
beat = seen[-1][1]
assert beat["host"] == "web1" and "nth" not in beat
