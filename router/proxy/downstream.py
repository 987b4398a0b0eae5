"""Connections from clients: aiohttp's HTTP server, with what it leaves open closed.

aiohttp parses, keeps connections alive and bounds pipelining. Added here: a limit on connections,
a time limit on heads and bodies, errors in the contract's form, and answers whose bytes are written
straight to the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from router.config.settings import ServerSettings
from router.errors import (
    BadRequest,
    InternalError,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    RouterError,
)
from router.limits.address import Address, client_address, parse
from router.limits.rate import key_of
from router.log import get_logger
from router.openai.envelope import error_body
from router.openai.paths import Dialect
from router.proxy.exchange import Flow
from router.proxy.headers import request_id, to_upstream

_log = get_logger("router.proxy")
_KEEP_ALIVE_S = 75.0
_LINGER_S = 2.0
_MAX_FIELD_BYTES = 64 * 1024
_MAX_LINE_BYTES = 16 * 1024
_NO_BODY = frozenset({204, 304})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Written(web.StreamResponse):
    """Stands for an answer that is on the transport already; aiohttp has nothing left to write."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection takes another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write no head."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""


class ClientConnection(web.RequestHandler):
    """One connection from a client.

    Attributes:
        exchange: the one whose bytes go straight to the transport; None otherwise.
        awaits_head: bytes have come since the latest head.
        head_due: when that head must be whole, set by the sweep; 0.0 where none is awaited.
        peer_key: what the rate of the peer's address is counted under.
    """

    __slots__ = ("_downstream", "awaits_head", "exchange", "head_due", "peer_key")

    def __init__(self, downstream: Downstream, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(downstream, **kwargs)
        self._downstream = downstream
        self.exchange: ClientExchange | None = None
        self.awaits_head = True
        self.head_due = 0.0
        self.peer_key = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away at once where there are too many."""
        super().connection_made(transport)
        peer = self.peername
        address = parse(peer[0]) if isinstance(peer, tuple) else None
        self.peer_key = key_of(address)
        self._downstream.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone; aiohttp cancels the handler."""
        self._downstream.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; where no request runs, this is the beginning of one, whose head is due soon."""
        self.awaits_head = True
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        if self.exchange is not None and self.exchange.flow is not None:
            self.exchange.flow.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self.exchange is not None and self.exchange.flow is not None:
            self.exchange.flow.resume()

    def refuse_and_close(self, error: RouterError) -> None:
        """Answer outside of any request, and close."""
        if self.transport is not None:
            self.transport.write(_whole_answer(error, Dialect.OPENAI, request_id(None), keep=False))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words may quote the client
    ) -> web.StreamResponse:
        """Answer a malformed request (400) or a fault of the router (500)."""
        error: RouterError
        if isinstance(exc, HttpProcessingError) or status < 500:
            error = BadRequest("The request is not valid HTTP/1.1, or its head is too large.")
        else:
            error = InternalError("The router failed; its log has the details.")
            _log.error("handler_failed", path=request.raw_path[:200], exc_info=exc)
        exchange, self.exchange = self.exchange, None
        if exchange is not None and exchange.begun:
            self.force_close()
        elif self.transport is not None:
            sent = exchange.request_id if exchange is not None else request_id(None)
            self.transport.write(_whole_answer(error, Dialect.OPENAI, sent, keep=False))
        return _CLOSE


class Downstream(web.Server):
    """Owner of the client connections.

    Args:
        handler: answers a request.
        settings: asked for anew at each use, so that a reload counts.
    """

    def __init__(self, handler: Handler, settings: Callable[[], ServerSettings]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
            max_field_size=_MAX_FIELD_BYTES,
            max_line_size=_MAX_LINE_BYTES,
        )
        self.settings = settings
        self.headers = to_upstream()
        self._clients: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        """Make the protocol of a new connection."""
        return ClientConnection(self, loop=self._loop, **self._kwargs)

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._clients)

    def opened(self, client: ClientConnection) -> None:
        """A connection is there."""
        self._clients.add(client)
        limit = self.settings().max_connections
        if len(self._clients) > limit:
            client.refuse_and_close(
                Overloaded(f"The router has its {limit} connections.", retry_after_s=1)
            )

    def closed(self, client: ClientConnection) -> None:
        """A connection has ended."""
        self._clients.discard(client)

    def sweep(self, now: float) -> None:
        """Close connections whose head is late; `now` in monotonic seconds."""
        limit_s = self.settings().header_timeout_s
        for client in tuple(self._clients):
            if client.exchange is not None or not client.awaits_head:
                client.head_due = 0.0
            elif not client.head_due:
                client.head_due = now + limit_s
            elif client.head_due < now:
                client.refuse_and_close(
                    RequestTimeout("The request's head did not arrive in time.")
                )


class ClientExchange:
    """`Exchange` over an aiohttp request."""

    __slots__ = (
        "_chunked", "_connection", "_downstream", "_request", "begun", "flow", "keep", "lines",
        "noted", "request_id", "started",
    )  # fmt: skip

    def __init__(
        self,
        request: web.BaseRequest,
        connection: ClientConnection,
        downstream: Downstream,
        started: float,
    ) -> None:
        self._request = request
        self._connection = connection
        self._downstream = downstream
        self._chunked = False
        self.keep = request.keep_alive
        self.lines, self.noted = downstream.headers.split(request.raw_headers)
        self.request_id = request_id(self.noted.get(b"x-request-id"))
        self.started = started
        self.begun = False
        self.flow: Flow | None = None
        connection.exchange = self
        connection.awaits_head = False

    @property
    def client(self) -> int:
        """What the rate of the client's address is counted under; the peer's is worked out once."""
        if b"x-forwarded-for" not in self.noted:
            return self._connection.peer_key
        return key_of(self.address)

    @property
    def address(self) -> Address | None:
        """The client's address, as far as it can be believed; None on a Unix socket."""
        trusted = self._downstream.settings().trusted_proxies
        forwarded_for = self.header(b"x-forwarded-for")
        return client_address(self._request.remote or "", forwarded_for, trusted)

    def header(self, name: bytes) -> str | None:
        """One of the noted headers; None where it is not there."""
        value = self.noted.get(name)
        return value.decode("utf-8", "surrogateescape") if value is not None else None

    def body_at_once(self) -> bytes | None:
        """The whole body, if it is there already."""
        content = self._request.content
        if not content.is_eof():
            return None
        body = content.read_nowait(-1)
        if len(body) > self._downstream.settings().max_body_bytes:
            raise self._too_large()
        return body

    async def read_body(self) -> bytes:
        """The whole body, bounded in size and time."""
        settings = self._downstream.settings()
        told = self.noted.get(b"content-length")
        if told is not None and int(told) > settings.max_body_bytes:
            raise self._too_large()
        if self.noted.get(b"expect", b"").lower() == b"100-continue":
            self._write(_CONTINUE)
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                return await self._read_on(settings.max_body_bytes)
        except TimeoutError:
            self.keep = False
            raise RequestTimeout("The request's body did not arrive in time.") from None
        except web.RequestPayloadError:
            self.keep = False
            raise BadRequest("The request's body is not framed as HTTP/1.1 asks.") from None

    async def _read_on(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self._request.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise self._too_large()
        return b"".join(pieces)

    def _too_large(self) -> RequestTooLarge:
        self.keep = False
        limit = self._downstream.settings().max_body_mb
        return RequestTooLarge(f"The request's body is over {limit} MiB.")

    def start(
        self, status: int, reason: bytes, lines: bytes, length: int | None, first: bytes
    ) -> None:
        """Write the head and the first bytes of the body in one go."""
        self.begun = True
        old = self._request.version < (1, 1)
        if status in _NO_BODY:
            framing = b""
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif old:
            framing = b""
            self.keep = False
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        if not self.keep:
            framing += b"connection: close\r\n"
        elif old:
            framing += b"connection: keep-alive\r\n"
        if self._chunked and first:
            first = b"%x\r\n%b\r\n" % (len(first), first)
        self._write(b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (status, reason, lines, framing, first))
        if self._connection.writing_paused and self.flow is not None:
            self.flow.pause()  # since an earlier answer: it will not be told again

    def write(self, data: bytes) -> None:
        """Write more of the body."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """The body is whole."""
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection: the answer is not whole."""
        self.begun = True
        self.keep = False
        self._connection.force_close()

    def refuse(self, error: RouterError, dialect: Dialect, lines: bytes = b"") -> None:
        """Answer with an error of the router's own."""
        self.begun = True
        if not self._request.content.is_eof():
            self.keep = False
        self._write(_whole_answer(error, dialect, self.request_id, lines, keep=self.keep))

    def ended(self) -> web.StreamResponse:
        """What the handler returns to aiohttp once the answer is written."""
        self._connection.exchange = None
        return _KEEP if self.keep else _CLOSE

    def _write(self, data: bytes) -> None:
        transport = self._connection.transport
        if transport is not None:
            transport.write(data)


def _whole_answer(
    error: RouterError, dialect: Dialect, sent_id: bytes, lines: bytes = b"", *, keep: bool
) -> bytes:
    body = error_body(error, dialect)
    own = "".join(f"{name}: {value}\r\n" for name, value in error.headers())
    return b"HTTP/1.1 %d %b\r\n%bx-request-id: %b\r\n%b%b%bcontent-length: %d\r\n\r\n%b" % (
        error.status,
        _REASONS.get(error.status, b"Error"),
        b"content-type: application/json\r\n",
        sent_id,
        own.encode(),
        lines,
        b"" if keep else b"connection: close\r\n",
        len(body),
        body,
    )


_REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
_KEEP = _Written(keep=True)
_CLOSE = _Written(keep=False)
