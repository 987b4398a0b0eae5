"""Connections from clients: HTTP/1.1 framed by llhttp, one protocol object a connection.

A request is handed on when it is whole, in the callback that read its last byte, and its answer is
written in the callback that read it from the engine: no task, queue or stream in between. What a
client sends ahead waits, as bytes and bounded, until its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, cast

import httptools

from router.access.keyring import Badge
from router.errors import (
    BadRequest,
    InternalError,
    RequestTimeout,
    RequestTooLarge,
    RouterError,
)
from router.limits.address import parse
from router.limits.rate import key_of
from router.log import get_logger
from router.openai.paths import Dialect
from router.proxy.client import ClientExchange, whole_answer

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream

_log = get_logger("router.proxy")
_IDLE_S = 75.0
_LINGER_S = 2.0
_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 128
_MAX_AHEAD_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})


class ClientConnection(asyncio.Protocol):
    """One connection from a client.

    Attributes:
        transport: to write to; None once the client is gone.
        badge: what it has shown of its key.
        peer: the peer's address as text, empty on a Unix socket.
        peer_key: what the rate of that address is counted under.
        writing_paused: the client does not keep up.
    """

    __slots__ = (
        "_ahead", "_current", "_downstream", "_due", "_head_left", "_headers", "_idle", "_incoming",
        "_last", "_lingers", "_moved", "_parser", "_queue", "_read", "_reading_paused", "_target",
        "badge", "peer", "peer_key", "transport", "writing_paused",
    )  # fmt: skip

    def __init__(self, downstream: Downstream) -> None:
        self._downstream = downstream
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_left = _MAX_HEAD_BYTES
        self._incoming: ClientExchange | None = None
        self._queue: deque[ClientExchange] = deque()
        self._current: ClientExchange | None = None
        self._ahead = bytearray()
        self._reading_paused = False
        self._last: tuple[ClientExchange | None, RouterError] | None = None
        self._lingers = False
        self._moved = False
        self._read = 0
        self._idle = False
        self._due = 0.0
        self.writing_paused = False
        self.transport: asyncio.Transport | None = None
        self.badge = Badge()
        self.peer = ""
        self.peer_key = 0

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "busy" if self._current else "idle"
        return f"<ClientConnection {self.peer} {state}>"

    # -- what the transport tells --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away at once where there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.peer_key = key_of(parse(self.peer))
        self._due = monotonic() + self._downstream.settings().header_timeout_s
        self._downstream.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone: what runs for it ends now."""
        self.transport = None
        self._downstream.closed(self)
        for exchange in (*self._queue, *((self._incoming,) if self._incoming else ())):
            self._downstream.left(exchange)
        self._forget()
        current, self._current = self._current, None
        if current is not None:
            self._downstream.finished()
            current.client_gone()

    def _forget(self) -> None:
        """Let go of what was asked and will not be answered."""
        while self._queue:
            self._queue.popleft().let_go()
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.let_go()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.writing_paused = True
        if self._current is not None and self._current.flow is not None:
            self._current.flow.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.writing_paused = False
        if self._current is None:
            self._downstream.loop.call_soon(self._go_on)
        elif self._current.flow is not None:
            self._current.flow.resume()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and have what is whole answered."""
        if self._lingers:
            return
        if self._current is not None or self._ahead or self._queue or self.writing_paused:
            self._keep_ahead(data)
        else:
            self._parse(data)
            if self._queue:
                self._next()
            elif self._idle:
                self._idle = False
                if self._incoming is None:
                    self._due = monotonic() + self._downstream.settings().header_timeout_s

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _MAX_AHEAD_BYTES and not self._reading_paused:
            assert self.transport is not None
            self._reading_paused = True
            self.transport.pause_reading()

    # -- parsing -------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        rest: bytes | None = data
        while rest is not None:  # not by recursion: one read may hold very many upgrades
            rest = self._feed(rest)

    def _feed(self, data: bytes) -> bytes | None:
        """Have llhttp read; what it is to read next, where it stopped at an upgrade."""
        self._moved = False
        self._read = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if not self._hand_over(rest):
                return self._decline_upgrade(rest)
        except httptools.HttpParserCallbackError as error:
            self._refuse(self._failed(error.__context__))
        except httptools.HttpParserError:
            self._refuse(BadRequest("The request is not valid HTTP/1.1."))
        else:
            self._check_progress(len(data))
        return None

    def _check_progress(self, count: int) -> None:
        """Bound what is neither body nor the end of a message: heads, trailers, extensions."""
        incoming = self._incoming
        if incoming is not None and incoming.refusal is not None:
            self._refuse(incoming.refusal)
        elif self._moved:
            self._head_left = _MAX_HEAD_BYTES
        else:
            self._head_left -= count
            if self._head_left <= 0:
                self._refuse(BadRequest("The request's head is too large."))

    def _hand_over(self, rest: bytes) -> bool:
        """Leave the connection to who speaks the other protocol; False where nobody does.

        What waits for its answer on the connection is in HTTP/1.1: then this goes on so, too.
        """
        transport = self.transport
        if self._queue or transport is None:
            return False
        method = self._parser.get_method()
        exchange = ClientExchange(self, self._downstream, method, self._target, self._headers)
        if b"upgrade" not in exchange.noted:
            return False
        try:
            self._check_head(exchange)
            upgrade = self._downstream.handler.upgrade(exchange)
        except RouterError as error:
            self._incoming = exchange
            self._refuse(error)
            return True
        if upgrade is None:
            return False
        self.transport = None
        self._downstream.closed(self)
        upgrade(transport, rest)
        return True

    def _decline_upgrade(self, rest: bytes) -> bytes | None:
        """Go on in HTTP/1.1, as RFC 9110 section 7.8 allows: llhttp has left the body unread.

        Gives what is to be read in its place; None where nothing is.
        """
        self._incoming = None
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(BadRequest("This is no tunnel: CONNECT is not taken."))
            return None
        version = self._parser.get_http_version().encode()
        lines = b"".join(
            b"%b: %b\r\n" % (name, _without_upgrade(name, value))
            for name, value in self._headers
            if name not in _UPGRADE
        )
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._target, version, lines)
        self._parser = httptools.HttpRequestParser(self)
        return head + rest

    def on_message_begin(self) -> None:
        """A head begins."""
        self._target = b""
        self._headers = []
        self._head_left = _MAX_HEAD_BYTES

    def on_url(self, url: bytes) -> None:
        """The request's target, perhaps in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; trailers go no further."""
        if self._incoming is None:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole: take the request, or remember why not."""
        parser = self._parser
        if parser.should_upgrade():
            return
        exchange = ClientExchange(
            self, self._downstream, parser.get_method(), self._target, self._headers
        )
        self._incoming = exchange
        if not parser.should_keep_alive():
            exchange.keep = False
        try:
            self._check_head(exchange)
            self._downstream.handler.head(exchange)
        except RouterError as error:
            exchange.refusal = error
            return
        idle = self._current is None and not self._queue
        if b"expect" in exchange.noted and idle and not exchange.old and self.transport is not None:
            self.transport.write(_CONTINUE)

    def _check_head(self, exchange: ClientExchange) -> None:
        """See to what llhttp leaves to the server: version, host, a body's size and coding."""
        noted = exchange.noted
        version = self._parser.get_http_version()
        exchange.old = version == "1.0"
        if version not in {"1.1", "1.0"}:
            raise BadRequest(f"HTTP/{version} is not taken; use HTTP/1.1.")
        if self._read > _MAX_HEAD_BYTES and self._head_size() > _MAX_HEAD_BYTES:
            raise BadRequest("The request's head is too large.")
        if len(self._headers) > _MAX_HEADERS:
            raise BadRequest(f"The request has more than {_MAX_HEADERS} headers.")
        if (b"host" not in noted and not exchange.old) or b"," in noted.get(b"host", b""):
            raise BadRequest("The request needs one Host header.")
        if noted.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise BadRequest("The only transfer-encoding that is taken is chunked.")
        if exchange.old and b"transfer-encoding" in noted:
            exchange.keep = False  # RFC 9112, section 6.1: it may have been framed in another way
        limits = self._downstream.settings()
        self._due = exchange.started + limits.body_timeout_s
        length = noted.get(b"content-length")
        if length is not None and int(length) > limits.max_body_bytes:
            raise RequestTooLarge(f"The request's body is over {limits.max_body_mb} MiB.")

    def _head_size(self) -> int:
        return len(self._target) + sum(len(name) + len(value) for name, value in self._headers)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._moved = True
        exchange = self._incoming
        if exchange is not None and exchange.refusal is None:
            exchange.refusal = exchange.add(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._moved = True
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            self._queue.append(exchange)

    # -- one after the other -------------------------------------------------------------------

    def _next(self) -> None:
        exchange = self._current = self._queue.popleft()
        self._downstream.active += 1
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
            return
        try:
            self._downstream.handler.request(exchange)
        except Exception as error:  # noqa: BLE001 - the edge: a fault ends its own request alone
            exchange.fail(self._failed(error))

    def ended(self, *, keep: bool) -> None:
        """The answer to the present request is written; the next one may come."""
        if self._current is None:  # the client has gone meanwhile
            return
        self._current = None
        self._downstream.finished()
        transport = self.transport
        if transport is None:
            return
        if not keep:
            self._idle = True  # what is written has as long to arrive as an idle client has
            self._due = 0.0
            self._forget()
            self._lingers = True
            transport.close()
        elif self._queue or self._ahead or self._last is not None:
            # Not from within this answer's own callback: a client that sends many requests ahead
            # must not grow the stack with them.
            self._due = 0.0
            self._downstream.loop.call_soon(self._go_on)
        else:
            self._await_more()

    def _await_more(self) -> None:
        """Nothing is left to do: wait for the rest of a request that has begun, or for another."""
        self._idle = self._incoming is None
        self._due = 0.0
        if not self._idle:  # while the router did not read, its time did not pass
            self._due = monotonic() + self._downstream.settings().body_timeout_s

    def _go_on(self) -> None:
        """Take up what was sent ahead."""
        if self._current is not None or self.transport is None or self.writing_paused:
            return
        if self._queue:
            exchange = self._queue[0]
            # What it waited for the answers before it is no time that an engine took.
            exchange.started = monotonic()
            try:
                if exchange.refusal is None:
                    self._downstream.handler.again(exchange)
            except RouterError as error:
                exchange.refusal = error
            self._next()
        elif self._last is not None:
            self._say_last(*self._last)
        elif self._ahead and not self._lingers:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            if self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
            self._await_more()
            self.data_received(ahead)

    # -- ends ----------------------------------------------------------------------------------

    def _failed(self, error: BaseException | None) -> InternalError:
        _log.error("request_failed", exc_info=error)
        return InternalError("The router failed; its log has the details.")

    def _refuse(self, error: RouterError) -> None:
        """Answer what cannot be read, or must not be, and take nothing more from this client.

        Whole requests that came before it are answered first.
        """
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            exchange.let_go()
        self._lingers = True
        self._ahead.clear()
        if self._queue or self._current is not None:
            self._last = exchange, error
        else:
            self._say_last(exchange, error)

    def _say_last(self, exchange: ClientExchange | None, error: RouterError) -> None:
        """Answer for the last time.

        Only the sending side is closed: what the client still sends would otherwise bring a reset,
        and that would take the answer with it.
        """
        self._last = None
        self._due = monotonic() + _LINGER_S
        if self.transport is None or self.transport.is_closing():
            return
        if exchange is None:
            self._downstream.refused(error, None)
            self.transport.write(whole_answer(error, Dialect.OPENAI, keep=False))
        else:
            exchange.keep = False
            exchange.write_refusal(error)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def check(self, now: float) -> None:
        """End a wait that has been too long; called by the sweep."""
        if self._current is not None or self.transport is None:
            return
        if not self._due:
            self._due = now + _IDLE_S
        elif now > self._due:
            if self._lingers or self._idle or self.writing_paused:
                self.transport.abort()
            elif self._incoming is not None:
                self._refuse(RequestTimeout("The request's body did not arrive in time."))
            else:
                self._refuse(RequestTimeout("The request's head did not arrive in time."))

    def turn_away(self, error: RouterError) -> None:
        """Answer before anything was asked, and close."""
        self._refuse(error)

    def close(self) -> None:
        """Close, after what is written has gone."""
        if self.transport is not None:
            self.transport.close()


def _without_upgrade(name: bytes, value: bytes) -> bytes:
    """A header's value; that of `connection` without the options of an upgrade."""
    if name != b"connection":
        return value
    options = [option.strip() for option in value.split(b",")]
    return b", ".join(option for option in options if option.lower() not in _UPGRADE)
