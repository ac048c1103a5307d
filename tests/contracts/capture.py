"""Sends one text by a provider's own SDK and prints the request that it would send; nothing leaves the process.

Input, one JSON object: provider, account, token, from, to, text, id, alphabet, validity_secs. Output: method, host, path, authorization,
content_type, fields.
"""

import json
import sys
import urllib.parse

import requests


class Captured(Exception):
    def __init__(self, request):
        super().__init__("captured")
        self.request = request


def send(_session, request, **_options):
    raise Captured(request)


requests.Session.send = send


def twilio(v):
    from twilio.rest import Client

    Client(v["account"], v["token"]).messages.create(to=v["to"], from_=v["from"], body=v["text"], validity_period=v["validity_secs"])


def vonage(v):
    from vonage_http_client import Auth, HttpClient
    from vonage_sms import Sms, SmsMessage

    client = HttpClient(Auth(api_key=v["account"], api_secret=v["token"]))
    unicode = v["alphabet"] == "ucs2"
    Sms(client).send(
        SmsMessage(
            to=v["to"].lstrip("+"),
            from_=v["from"],
            text=v["text"],
            client_ref=v["id"],
            type="unicode" if unicode else "text",
            ttl=v["validity_secs"] * 1000,
        )
    )


def messagebird(v):
    import messagebird

    messagebird.Client(v["token"]).message_create(
        v["from"],
        v["to"].lstrip("+"),
        v["text"],
        {
            "reference": v["id"],
            "datacoding": "unicode" if v["alphabet"] == "ucs2" else "plain",
            "validity": v["validity_secs"],
        },
    )


def plivo(v):
    import plivo

    plivo.RestClient(v["account"], v["token"]).messages.create(src=v["from"], dst=v["to"], text=v["text"], type_="sms")


def sinch(v):
    from sinch import SinchClient

    client = SinchClient(service_plan_id=v["account"], sms_api_token=v["token"], sms_region="eu")
    client.sms.batches.send_sms(to=[v["to"]], from_=v["from"], body=v["text"], client_reference=v["id"])


def fields_of(request):
    body = request.body or ""
    if isinstance(body, bytes):
        body = body.decode()
    if request.headers.get("Content-Type", "").startswith("application/json"):
        return json.loads(body)
    return dict(urllib.parse.parse_qsl(body, keep_blank_values=True))


def main():
    values = json.load(sys.stdin)
    try:
        globals()[values["provider"]](values)
        sys.exit("the SDK sent nothing")
    except Captured as captured:
        request = captured.request
    url = urllib.parse.urlsplit(request.url)
    json.dump(
        {
            "method": request.method,
            "host": url.hostname,
            "path": url.path,
            "query": url.query,
            "authorization": request.headers.get("Authorization"),
            "content_type": request.headers.get("Content-Type", "").split(";")[0],
            "fields": fields_of(request),
        },
        sys.stdout,
    )


main()
