"""Cairn as a contender of a harness that times monitoring systems side by side: `c_fault.py --extra tests/python/contender.py cairn-1s`.

The harness kills TCP listeners (`t.name`, `t.port`) and asks when each was first told. csmsd tells: its provider is a table that
POSTs to the harness's webhook receiver, so the stamp is taken where Prometheus with Alertmanager has it taken too.
Binaries: CAIRN_BINARIES, or target/release of this repository.
"""

import os
import pathlib
import re

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
