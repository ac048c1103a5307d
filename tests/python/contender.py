"""Cairn as a contender of a harness that measures monitoring systems side by side:
`c_fault.py --extra tests/python/contender.py cairn-1s`, `b_ingest.py --extra tests/python/contender.py "cairn, 1000 rules"`.

The harness kills TCP listeners (`t.name`, `t.port`) and asks when each was first told. csmsd tells: its provider is a table that
POSTs to the harness's webhook receiver, so the stamp is taken where Prometheus with Alertmanager has it taken too.
For ingest the load is `bench-judge --push`: a feed of 5,000 series as a ccollectd would send them, each number judged by one
of a thousand rules; all of it counts as accepted when the event about a last number is on the stream.
Binaries: CAIRN_BINARIES, or target/release of this repository.
"""

import json
import os
import pathlib
import re
import subprocess
import time

from lab import LABGEN, Proc, wait_port

BINARIES = pathlib.Path(
    os.environ.get("CAIRN_BINARIES") or pathlib.Path(__file__).resolve().parents[2] / "target/release"
)


def fault(folder, targets):
    run = folder / "run"
    run.mkdir()
    webhook = 19440
    ports = "".join(
        f"[[port]]\nname = '{t.name}'\naddress = '127.0.0.1:{t.port}'\ninterval = '1s'\nattempts = 1\n" for t in targets
    )
    # What the receiver writes down of each alert: the moment, its number, `status`, `alertname`, `instance`.
    provider = (
        f"[[provider]]\nname = 'webhook'\nurl = 'http://127.0.0.1:{webhook}'\n[provider.request]\npath = '/'\n"
        "json = { alerts = [{ status = 'firing', labels = { alertname = 'cairn', instance = '{text} {to}' } }] }\n"
        "accepted = { status = [200] }\n[[recipient]]\nname = 'on duty'\nto = '+4912345678'\nseverity = 'ERR'\n"
    )
    out = folder / "webhook.log"
    processes = [Proc([str(LABGEN), "webhook", "--port", str(webhook), "--out", str(out)], log=folder / "webhook.out")]
    wait_port(webhook)
    for daemon, text in {"ccollectd": ports, "cprocessd": "", "csmsd": provider}.items():
        config = folder / f"{daemon}.toml"
        config.write_text(f"host = 'here'\nrun_dir = '{run}'\nstate_dir = '{folder / daemon}'\n{text}")
        command = [str(BINARIES / daemon), "--config", str(config)]
        processes.append(Proc(command, log=folder / f"{daemon}.log"))

    def parse():
        told = {}
        for line in out.read_text().splitlines() if out.exists() else []:
            for name in re.findall(r"here!port:(\w+)", line):
                told.setdefault(name, float(line.split()[0]))
        return told

    return processes, {"webhook": parse}


# First port, targets, warm-up in seconds, seconds over which the kills are spread, longest wait in seconds: as its other
# contenders with one-second settings have it.
FAULT = {"cairn-1s": (fault, 21800, 20, 12, 20, 60)}


ATTRIBUTES = "used_bytes free_bytes used_percentage reads_per_s writes_per_s errors_per_s latency_ms queue in_flight total".split()


def ingest(folder, rules):
    run = folder / "run"
    run.mkdir()
    patterns = [f"h*{d}!app.pool{t}:/data/{t}.{a}" for d in range(10) for t in range(10) for a in ATTRIBUTES][:rules]
    alarms = [("probe", "probe!app.probe:*.level > 0.5 WARN"), *((p, f"{p} > 1000000 WARN") for p in patterns)]
    config = folder / "cprocessd.toml"
    config.write_text(
        f"host = 'here'\nrun_dir = '{run}'\nstate_dir = '{folder / 'state'}'\ndefault_rules = false\n"
        + "".join(f"[[alarm]]\nname = '{name}'\nrule = '{rule}'\n" for name, rule in alarms)
    )
    process = Proc([str(BINARIES / "cprocessd"), "--config", str(config)], log=folder / "log")
    while not (run / "stream").exists():
        time.sleep(0.1)
    # The push itself waits for the event about the last number, as there is nothing to count.
    return process, lambda: None


def push(folder):
    command = [str(BINARIES / "bench-judge"), "--push", str(folder / "run"), "10000000"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


INGEST = {
    "cairn, no rules": (lambda folder: ingest(folder, 0), push, 10_000_000),
    "cairn, 1000 rules": (lambda folder: ingest(folder, 1000), push, 10_000_000),
}
