"""A relay between a fake engine and a fake client."""

from __future__ import annotations

from router.openai.paths import INFERENCE_PATHS
from router.proxy.answer import Disconnected, Head
from router.proxy.relay import Relay
from unit.proxy.proxy_fakes import FakeConnection, FakeExchange, FakeLease, call_of

JSON = b"content-type: application/json\r\n"
EVENTS = b"Content-Type: text/event-stream; charset=utf-8\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
BROKE = Disconnected("closed by the engine")


class Attempt:
    """A relay at work, with the client and the engine's connection it stands between."""

    def __init__(self, *, path="/v1/chat/completions", may_move=True, reused=False) -> None:
        self.exchange = FakeExchange()
        self.call = call_of(self.exchange, INFERENCE_PATHS[path])
        self.connection = FakeConnection(reused=reused)
        self.lease = FakeLease()
        self.ended: list[Relay] = []
        self.relay = Relay(
            self.exchange, self.call, self.lease, may_move=may_move, ended=self.ended.append
        )
        self.relay.send(self.connection, b"HEAD ")

    def head(self, status=200, lines=JSON, length=None) -> None:
        self.relay.on_head(Head(status, b"Reason", lines, length, lines is EVENTS, None))

    def streams(self, *pieces: bytes) -> None:
        self.head(lines=EVENTS)
        for piece in pieces:
            self.relay.on_data(piece)

    def check(self, at: float) -> None:
        """Look at it so long after its head came."""
        self.relay.check(self.call.started + at)

    @property
    def outcome(self):
        return self.relay.outcome
