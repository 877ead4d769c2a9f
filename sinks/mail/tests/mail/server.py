"""A mail server (aiosmtpd) that does as the recipient's name says, and writes each mail that it took to its standard output.

A line of JSON per mail: what Python's own parser reads in it. `PORT n` is the first line.
"""

import asyncio
import email
import email.policy
import json
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    def __init__(self):
        self.seen = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        seen = self.seen[address] = self.seen.get(address, 0) + 1
        name = address.split("@")[0]
        if name == "nobody":
            return "550 5.1.1 no such user"
        if name == "busy" or (name == "shy" and seen == 1):
            return "451 4.3.0 come again"
        if name == "closing" and seen == 1:
            return "421 4.3.2 closing"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        name = envelope.rcpt_tos[0].split("@")[0]
        if name == "cut" and self.seen[envelope.rcpt_tos[0]] == 1:
            server.transport.abort()
            return "250 never heard"
        if name == "silent" and self.seen[envelope.rcpt_tos[0]] == 1:
            await asyncio.sleep(3600)
        if name == "full":
            return "552 5.3.4 too large"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = lambda kind: part.get_content() if (part := message.get_body((kind,))) else None
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": {key: str(value) for key, value in message.items()},
            "defects": [str(defect) for part in message.walk() for defect in part.defects],
            "text": body("plain"),
            "html": body("html"),
            "files": [[part.get_filename(), part.get_content_type(), part.get_payload(decode=True).decode()] for part in message.iter_attachments()],
        }
        print(json.dumps(told), flush=True)
        return "250 OK"


async def main():
    handler = Handler()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, enable_SMTPUTF8=True), "127.0.0.1", int(sys.argv[1]))
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    # Until whoever started it is gone.
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
