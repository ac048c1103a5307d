"""Says whether dkimpy finds the DKIM signature of the mail in its input good.

signature.py RECORD    the record that DNS would have at SELECTOR._domainkey.DOMAIN
"""

import sys

import dkim

asked = []


def record(name, timeout=5):
    asked.append(name.decode())
    return sys.argv[1].encode()


good = dkim.verify(sys.stdin.buffer.read(), dnsfunc=record)
print("good" if good else "bad", *asked)
