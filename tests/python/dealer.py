"""DEALER clients: many questions in flight, told apart by what they put before the empty frame."""
from peer import *

QUESTIONS = {"query": "server-list", "control": None, "cprocessd.sock": "health", "feed-query": "snapshot", "ccollectd.sock": "health"}
for name, question in QUESTIONS.items():
    request = {"query": question} if question else {"order": "nothing"}
    for form, (pack, unpack) in FORMATS.items():
        dealer = connect(zmq.DEALER, name)
        # As a REQ does it, with the empty frame.
        dealer.send_multipart([b"", pack(request)])
        empty, answer = dealer.recv_multipart()
        assert empty == b"" and unpack(answer)["ok"] is bool(question), answer
        # Without it, the answer is without it.
        dealer.send(pack(request))
        (answer,) = dealer.recv_multipart()
        assert unpack(answer)["ok"] is bool(question), answer
        # Forty at once; what stands before the empty frame comes back with the answer.
        for i in range(40):
            dealer.send_multipart([b"%d" % i, b"", pack(request)])
        answers = [dealer.recv_multipart() for _ in range(40)]
        assert sorted(int(number) for number, _, _ in answers) == list(range(40))
        assert all(unpack(answer)["ok"] is bool(question) for _, _, answer in answers)

# One that never reads does not keep others from being answered.
deaf = connect(zmq.DEALER, "query", RCVHWM=1, LINGER=0, SNDTIMEO=0)
sent = 0
try:
    for sent in range(20_000):
        deaf.send_multipart([b"", b'{"query": "snapshot"}'])
except zmq.Again:
    pass
assert sent > 200, sent
assert Asker("query").ask("health")["daemon"] == "cprocessd"
assert Asker("query").ask("server-list")
