"""Recomputes the worked example of PROTOCOL.md."""
import pathlib
import re
import sys
import uuid

text = pathlib.Path(sys.argv[1]).read_text()
(example,) = re.findall(r"```text ids\n(.*?)```", text, re.S)
space = None
lines = [line for line in example.splitlines() if line.strip()]
for line in lines:
    name, result = re.fullmatch(r'uuid5\((.*)\) = ([0-9a-f-]{36})', line).groups()
    where, what = re.fullmatch(r'(\w+), "(.*)"', name).groups()
    assert str(uuid.uuid5(uuid.NAMESPACE_URL if where == "URL" else space, what)) == result, line
    space = space or uuid.UUID(result)
assert len(lines) >= 7, lines
