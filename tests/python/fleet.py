"""Publishes as a cprocessd of many hosts would: fleet.py RUN_DIR HOSTS. All of it is made up."""
import random, sys, time, uuid
import msgpack, zmq

run, count = sys.argv[1], int(sys.argv[2])
began = int(time.time() * 1000)
epoch = uuid.uuid4().hex[:16]
context = zmq.Context()
stream, query = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
stream.set_hwm(100_000)
stream.bind(f"ipc://{run}/stream"), query.bind(f"ipc://{run}/query")

names = [f"host{n:04}" for n in range(count)]
loads = {name: [random.betavariate(2, 4) * 100, random.betavariate(4, 4) * 100, random.betavariate(3, 3) * 100] for name in names}
down, unknown, troubled = names[7::331], names[11::97], names[3::29]


def incident(host, address, severity, text, n):
    return {"incident": str(uuid.uuid5(uuid.NAMESPACE_URL, address)), "address": address, "rule": "check", "severity": severity,
            "since": began - n * 77_777, "text": text, "acked": False, "silenced": False, "unreachable": False}


incidents = [incident(host, f"{host}!alive:", "CRIT", "no sign of life for 10s", n) for n, host in enumerate(down)]
incidents += [incident(host, f"{host}!port:www (443)", "WARN" if n % 3 else "ERR", "connection refused", n) for n, host in enumerate(troubled)]
hosts = [{"host": name, "state": "down" if name in down else "unknown" if name in unknown else "up", "since": began, "last_seen": began,
          "severity": None, "checks": 1, "open": 0} for name in names]
answers = {
    "snapshot": {"epoch": epoch, "seq": 0, "hosts": hosts, "checks": [], "incidents": incidents},
    "server-list": hosts,
    "down-list": incidents,
    "events": {"epoch": epoch, "head_seq": 0, "events": []},
}


def sample(host, now, resource, unit, attribute, value):
    return {"host": host, "from": host, "service": "machine", "time": now, "interval_ms": 1000, "resource": resource, "unit": unit,
            "values": {attribute: value}}


due = time.monotonic()
while True:
    while query.poll(max(0, int((due - time.monotonic()) * 1000))):
        *route, question = query.recv_multipart()
        name = msgpack.unpackb(question).get("query")
        query.send_multipart([*route, msgpack.packb({"ok": True, "data": answers[name]})])
    due += 1
    now = int(time.time() * 1000)
    for host, load in loads.items():
        if host in down or host in unknown:
            continue
        load[0] = min(100, max(0, load[0] + random.gauss(0, 4)))
        batch = [sample(host, now, "cpu", "all", "load", load[0]), sample(host, now, "memory", "physical", "used_percentage", load[1]),
                 sample(host, now, "disk", "/", "used_percentage", load[2])]
        stream.send_multipart([f"value.{host}!".encode(), msgpack.packb(batch)])
    stream.send_multipart([b"beat.", msgpack.packb({"time": now, "epoch": epoch, "head_seq": 0})])
