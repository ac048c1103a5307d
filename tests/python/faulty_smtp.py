"""A mail server that fails where and how it is told to.

    faulty_smtp.py CERT KEY         STARTTLS and AUTH (mon, s3cret) are required
    faulty_smtp.py CERT KEY first   TLS comes first, and AUTH is required
    faulty_smtp.py                  none of it

It prints {"port": N} once it listens on 127.0.0.1, and {"mail": {from, to, data}} for each mail that it has accepted. Each
line of its input, {"stage", "fault"}, replaces the fault so far, and is answered by {"planned": true}; {} is none.

Stages are banner ehlo starttls auth mail rcpt data text end. Faults are hang, drop, slow (half a second late), endless (a
reply that does not end) and any reply, as in "451 later". At `end` the mail has been accepted before a hang or drop.
"""

import asyncio
import json
import logging
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

# Faults are what it is for: asyncio and aiosmtpd need not report them.
logging.disable()
plan = {}


def say(line):
    print(json.dumps(line), flush=True)


async def meet(server, stage):
    """Whether the fault has taken the place of an answer."""
    if plan.get("stage") != stage:
        return False
    fault = plan["fault"]
    if fault == "slow":
        await asyncio.sleep(0.5)
        return False
    if fault == "hang":
        await asyncio.sleep(3600)
    elif fault == "drop":
        server.transport.abort()
    elif fault == "endless":
        while server.transport is not None and not server.transport.is_closing():
            server._writer.write(b"2" * 65536)
            await server._writer.drain()
            # Else nothing else runs once the client has gone.
            await asyncio.sleep(0)
    else:
        await server.push(fault)
        if stage == "banner" or fault.startswith("421"):
            server.transport.close()
    return True


class Faulty(SMTP):
    async def _handle_client(self):
        if not await meet(self, "banner"):
            await super()._handle_client()

    async def smtp_EHLO(self, arg):
        if not await meet(self, "ehlo"):
            await super().smtp_EHLO(arg)

    async def smtp_STARTTLS(self, arg):
        if not await meet(self, "starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg):
        if not await meet(self, "auth"):
            await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg):
        if not await meet(self, "mail"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg):
        if not await meet(self, "rcpt"):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg):
        if plan.get("stage") == "text":
            self.transport.pause_reading()
            await self.push("354 go on")
            await asyncio.sleep(3600)
        if not await meet(self, "data"):
            await super().smtp_DATA(arg)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        fault = plan.get("fault", "") if plan.get("stage") == "end" else ""
        if fault[:1] in ("4", "5"):
            return fault
        data = envelope.content.decode("ascii", "replace")
        say({"mail": {"from": envelope.mail_from, "to": envelope.rcpt_tos, "data": data}})
        await meet(server, "end")
        return "250 2.0.0 accepted"


def authenticate(server, session, envelope, mechanism, data):
    # What is not handled is answered with 535.
    return AuthResult(success=(data.login, data.password) == (b"mon", b"s3cret"), handled=False)


async def main():
    loop = asyncio.get_running_loop()
    # A client that goes away in the middle is what this is for.
    loop.set_exception_handler(lambda loop, context: None)
    first = None
    options = {"hostname": "mx.lab.test", "data_size_limit": None}
    if len(sys.argv) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        options |= {"authenticator": authenticate, "auth_required": True}
        if "first" in sys.argv:
            first = context
            # aiosmtpd sees only the TLS that it has begun itself.
            options |= {"auth_require_tls": False}
        else:
            options |= {"tls_context": context, "require_starttls": True}
    server = await loop.create_server(lambda: Faulty(Handler(), loop=loop, **options), "127.0.0.1", 0, ssl=first)
    say({"port": server.sockets[0].getsockname()[1]})
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        plan.clear()
        plan.update(json.loads(line))
        say({"planned": True})


asyncio.run(main())
