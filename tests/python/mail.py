"""Says in JSON what Python's mail and HTML parsers make of the mail in its input: headers, parts, defects.

Of an HTML part: its elements with their attributes, and its text.
"""

import base64
import email
import email.policy
import html.parser
import json
import sys


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes)])

    def handle_data(self, data):
        self.text += data


def part(found):
    told = {
        "type": found.get_content_type(),
        "charset": found.get_content_charset(),
        "disposition": found.get_content_disposition(),
        "filename": found.get_filename(),
        "defects": [repr(defect) for defect in found.defects],
    }
    if not found.is_multipart():
        content = found.get_payload(decode=True)
        told["base64"] = base64.b64encode(content).decode()
        if found.get_content_maintype() == "text":
            told["text"] = content.decode(found.get_content_charset() or "ascii")
        if told["type"] == "text/html":
            page = Page()
            page.feed(told["text"])
            page.close()
            told["elements"] = page.elements
            told["shown"] = page.text
    return told


mail = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
print(
    json.dumps(
        {
            "headers": [[name, str(value)] for name, value in mail.items()],
            "defects": [repr(defect) for value in mail.values() for defect in value.defects],
            "parts": [part(found) for found in mail.walk()],
        }
    )
)
