"""WebSocket (RFC 6455) over a client's connection: frames by `websockets`, bounded in both ways.

The connection begins as HTTP in `downstream`, which hands its transport over once the handshake is
good. What is sent here is for people who look on: whoever does not keep up is told less, then cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from router.errors import BadRequest

_MAX_MESSAGE_BYTES = 1024
_PING_S = 15.0
_SILENCE_S = 45.0
_STALL_S = 15.0
_LAST_WORDS_S = 2.0
_HANDSHAKE = (
    b"host", b"connection", b"upgrade", b"origin", b"sec-websocket-key", b"sec-websocket-version",
)  # fmt: skip
# `websockets` logs each opening and closing at info; here they are no news.
_quiet = logging.Logger("router.websocket", logging.ERROR)

Upgrade = Callable[[asyncio.Transport, bytes], None]
"""Goes on with a connection: is given its transport, and the bytes that came after the head."""


class WebSocket(asyncio.Protocol):
    """One open WebSocket. What the client sends is read and, but for control frames, ignored.

    Attributes:
        keeps_up: the client reads what is written; while it does not, `send` sends nothing.
        on_close: called once, when the connection has ended.
    """

    def __init__(self, protocol: ServerProtocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._heard = self._pinged = monotonic()
        self._stalled = 0.0
        self._ended_at: float | None = None
        self.keeps_up = True
        self.on_close: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<WebSocket {self._protocol.state.name.lower()} keeps_up={self.keeps_up}>"

    # -- to the client -------------------------------------------------------------------------

    def send(self, text: bytes) -> bool:
        """Send a message of UTF-8 text; False, and nothing is sent, where the client is behind."""
        if not self.keeps_up or self._protocol.state is not State.OPEN:
            return False
        self._protocol.send_text(text)
        self._flush()
        return True

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; `check` ends the connection if the client does not."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._ended_at = monotonic()
            self._flush()

    def check(self, now: float) -> None:
        """Ping a silent client, and cut one that is gone, stuck or too slow; monotonic seconds."""
        if self._ended_at is not None:
            late = now - self._ended_at > _LAST_WORDS_S
        else:
            stalled = not self.keeps_up and now - self._stalled > _STALL_S
            late = stalled or now - self._heard > _SILENCE_S
        if late:
            self._transport.abort()
        elif self._ended_at is None and self.keeps_up and now - self._pinged > _PING_S:
            self._pinged = now
            self._protocol.send_ping(b"")
            self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()

    # -- what the transport tells --------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take frames; pings and the closing handshake are answered."""
        self._heard = monotonic()
        self._protocol.receive_data(data)
        self._protocol.events_received()
        if self.keeps_up:
            self._flush()
        elif self._protocol.data_to_send():
            self._transport.abort()  # it makes the router write, and does not read

    def eof_received(self) -> None:
        """The client has closed its side."""
        self._protocol.receive_eof()
        self._flush()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.keeps_up = False
        self._stalled = monotonic()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.keeps_up = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is over."""
        if self.on_close is not None:
            self.on_close()


def handshake(
    path: str, header: Callable[[bytes], str | None], opened: Callable[[WebSocket], None]
) -> Upgrade:
    """Check a client's handshake; what answers it, and calls `opened` with the open WebSocket.

    Args:
        path: that was asked for.
        header: a header of the request by its name in lower case; None where it is not there.
        opened: may send at once, and sets `on_close`.

    Raises:
        BadRequest: it is no good handshake.
    """
    if header(b"content-length") is not None or header(b"transfer-encoding") is not None:
        raise BadRequest("A WebSocket handshake has no body.")
    protocol = ServerProtocol(max_size=_MAX_MESSAGE_BYTES, logger=_quiet)
    values = ((name, header(name)) for name in _HANDSHAKE)
    lines = [
        b"%b: %b\r\n" % (name, value.encode("utf-8", "surrogateescape"))
        for name, value in values
        if value is not None
    ]
    protocol.receive_data(b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), b"".join(lines)))
    events = protocol.events_received()
    if not events or not isinstance(events[0], Request):
        raise BadRequest("The WebSocket handshake has a header that cannot be read.")
    response = protocol.accept(events[0])
    if response.status_code != 101:
        raise BadRequest(f"The WebSocket handshake is not valid: {protocol.handshake_exc}.")

    def upgrade(transport: asyncio.Transport, rest: bytes) -> None:
        protocol.send_response(response)
        socket = WebSocket(protocol, transport)
        transport.set_protocol(socket)
        socket.data_received(rest)
        opened(socket)

    return upgrade


GOING_AWAY = int(CloseCode.GOING_AWAY)
"""The router ends."""
LOGGED_OUT = 4401
"""The client may no longer look: an application's own code, after HTTP's 401."""
