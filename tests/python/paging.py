"""Follows the pages of long answers, which stay those of one state whatever happens meanwhile."""
from peer import *

VALUES, CHECKS = 2500, 1100
names = [f"n{i:04}" for i in range(VALUES)]
numbers = [(n, i) for i, n in enumerate(names)]
socket = connect(zmq.PUSH, "plugins")
for start in range(0, VALUES, 1000):
    values = dict(numbers[start:start + 1000])
    socket.send(msgpack.packb({"service": "big", "msg_type": "value", "resource_type": "r", "unit": "u", "values": values}))
for i in range(CHECKS):
    socket.send(msgpack.packb({"service": "many", "msg_type": "up", "unit": f"unit {i:04}"}))

query = Asker("query")
wait_for("all checks are known", lambda: len(query.ask("service-list")) == CHECKS)
wait_for("all values are known", lambda: len(query.ask("last-value", pattern="*!big")) == VALUES)

for form in FORMATS:
    asker = Asker("query", form)
    pages = list(asker.pages(query="last-value", pattern="*!big"))
    assert [len(page) for page in pages] == [1000, 1000, 500], [len(page) for page in pages]
    rows = asker.ask("last-value", pattern="*!big")
    assert [row["address"] for row in rows] == [f"testhost!big.r:u.{n}" for n in names]
    assert [row["value"] for row in rows] == list(range(VALUES))
    for socket_name in ["query", "feed-query"]:
        pages = list(Asker(socket_name, form).pages(query="snapshot"))
        assert len(pages) == 2 and len({(page["epoch"], page["seq"]) for page in pages}) == 1
        snapshot = Asker(socket_name, form).ask("snapshot")
        assert len(snapshot["checks"]) == CHECKS and len(snapshot["hosts"]) == 1
    pages = list(asker.pages(query="server-status", host="testhost"))
    assert len(pages) > 3 and all(page["server"] == pages[0]["server"] for page in pages)
    status = asker.ask("server-status", host="testhost")
    assert len(status["values"]) >= VALUES and len(status["services"]) == CHECKS
    # A page asked for twice is the same page: an answer that was lost can be had again.
    first = asker.reply(query="service-list")
    assert asker.reply(page=first["next"]) == asker.reply(page=first["next"])

# What happens after the first page is not on the second.
first = query.reply(query="service-list")
assert len(first["data"]) == 1000 and first["data"][0]["unit"] == "unit 0000"
socket.send(msgpack.packb({"service": "many", "msg_type": "down", "unit": f"unit {CHECKS - 1:04}"}))
socket.send(msgpack.packb({"service": "many", "msg_type": "up", "unit": "unit 0000 and a half"}))
wait_for("one more check is known", lambda: len(query.ask("service-list")) == CHECKS + 1)
wait_for("one is down", lambda: len(query.ask("down-list")) == 1)
second = query.reply(page=first["next"])
assert "next" not in second
assert len(second["data"]) == CHECKS - 1000 and second["data"][-1]["state"] == "up", second["data"][-1]
# Any client may go on with a page, and in the other format.
assert Asker("query", "JSON").reply(page=first["next"]) == second

# The journal is read in pieces by `after`, not by pages.
seqs, after = [], 0
while True:
    reply = query.reply(query="events", after=after, limit=300)
    assert "next" not in reply
    if not reply["data"]["events"]:
        break
    seqs += [event["seq"] for event in reply["data"]["events"]]
    after = seqs[-1]
assert seqs == list(range(1, reply["data"]["head_seq"] + 1)) and len(seqs) > CHECKS

# Seventeen long answers at once: the oldest makes way.
for _ in range(16):
    query.reply(query="service-list")
assert query.reply(page=first["next"])["error"]["code"] == "page-expired"
