"""A client's exchange: what it asked, and how its answer is written to its connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from router.access.keyring import Badge
from router.errors import InternalError, Overloaded, RequestTooLarge, RouterError
from router.limits.address import Address, client_address, parse, within
from router.limits.rate import key_of
from router.log import get_logger
from router.openai.envelope import error_body
from router.openai.paths import Dialect
from router.proxy.exchange import Flow, Journey
from router.proxy.headers import request_id

if TYPE_CHECKING:
    from router.access.identity import Identity
    from router.proxy.admit import Entry
    from router.proxy.connection import ClientConnection
    from router.proxy.downstream import Downstream

_log = get_logger("router.proxy")
_NO_BODY = frozenset({204, 304})
# A target as proxies get it: RFC 9112, section 3.2.2.
_ABSOLUTE = re.compile(rb"^https?://[^/?]*/?", re.IGNORECASE)
_CLOSE = b"connection: close\r\n"
_KEEP = b"connection: keep-alive\r\n"


class ClientExchange:
    """One request of a client and its answer; see `Exchange` for what the data plane uses of it.

    Attributes:
        method: as sent.
        path: of the target, without a query.
        keep: the connection takes another request after this one.
        old: HTTP/1.0.
        due: monotonic time by which its body is to be there.
        size: bytes of its body, as long as they are counted.
        refusal: the answer, where the head alone was reason enough.
        entry: the inference path that is asked for, once that is known.
        identity: who asks, once that is known.
        model: full name of what is asked for, once that is known.
        dialect: form of errors.
    """

    # What most exchanges never change costs them nothing here.
    keep = True
    old = False
    due = 0.0
    size = 0
    begun = False
    refusal: RouterError | None = None
    entry: Entry | None = None
    identity: Identity | None = None
    model = ""
    dialect = Dialect.OPENAI
    rate_lines = b""
    flow: Flow | None = None
    journey: Journey | None = None
    _body: bytes | bytearray = b""
    _chunked = False
    _task: asyncio.Task[None] | None = None

    def __init__(
        self,
        connection: ClientConnection,
        downstream: Downstream,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._connection = connection
        self._downstream = downstream
        self.method = method
        if target[:1] != b"/":
            target = _ABSOLUTE.sub(b"/", target)
        path, _, self._query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.lines, self.noted = downstream.headers.split(headers)
        self.request_id = request_id(self.noted.get(b"x-request-id"))
        self.started = monotonic()

    # -- the request ---------------------------------------------------------------------------

    def add(self, data: bytes) -> RouterError | None:
        """Take a piece of the body; gives the answer where this or all bodies become too large."""
        count = len(data)
        downstream = self._downstream
        self.size += count
        downstream.body_bytes += count
        limits = downstream.settings()
        if self.size > limits.max_body_bytes:
            self._drop()
            return RequestTooLarge(f"The request's body is over {limits.max_body_mb} MiB.")
        if downstream.body_bytes > limits.max_body_memory_bytes:
            self._drop()
            held = limits.max_body_memory_mb
            return Overloaded(f"The router holds its {held} MiB of requests.", retry_after_s=1)
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body + data)
        else:
            self._body += data
        return None

    def _drop(self) -> None:
        self.let_go()
        self.forget_body()

    def let_go(self) -> None:
        """Count the body no longer: its request has ended."""
        self._downstream.body_bytes -= self.size
        self.size = 0

    @property
    def body(self) -> bytes:
        """The whole body, until `forget_body`."""
        if not isinstance(self._body, bytes):
            self._body = bytes(self._body)
        return self._body

    def forget_body(self) -> None:
        """Keep the body no longer: who needs it has it, perhaps in another form."""
        self._body = b""

    @property
    def badge(self) -> Badge:
        """What its connection has shown of its key."""
        return self._connection.badge

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
        return client_address(self._connection.peer, self.header(b"x-forwarded-for"), trusted)

    @property
    def is_secure(self) -> bool:
        """Whether the client came by https, as far as a trusted proxy tells."""
        peer = parse(self._connection.peer)
        trusted = self._downstream.settings().trusted_proxies
        if peer is None or not within(peer, trusted):
            return False
        return (self.header(b"x-forwarded-proto") or "").strip().lower() == "https"

    def parameter(self, name: str) -> str | None:
        """The first value of a name in the query; None where it is not there."""
        values = parse_qs(self._query.decode("latin-1"), keep_blank_values=True).get(name)
        return values[0] if values else None

    def header(self, name: bytes) -> str | None:
        """One of the noted headers; None where it is not there."""
        value = self.noted.get(name)
        return value.decode("utf-8", "surrogateescape") if value is not None else None

    # -- the answer ----------------------------------------------------------------------------

    def start(
        self, status: int, reason: bytes, lines: bytes, length: int | None, first: bytes
    ) -> None:
        """Write the head and the first bytes of the body in one go."""
        self.begun = True
        if status in _NO_BODY:
            framing = b""
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.old:
            framing = b""
            self.keep = False
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
            if first:
                first = b"%x\r\n%b\r\n" % (len(first), first)
        if not self.keep:
            framing += _CLOSE
        elif self.old:
            framing += _KEEP
        if self._connection.writing_paused and self.flow is not None:
            self.flow.pause()  # since an earlier answer: it will not be told again
        self._write(b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (status, reason, lines, framing, first))

    def write(self, data: bytes) -> None:
        """Write more of the body."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """The body is whole; the connection goes on."""
        if self._chunked:
            self._write(b"0\r\n\r\n")
        self._end()

    def cut(self) -> None:
        """Close the connection: the answer is not whole and must not look so."""
        self.begun = True
        self.keep = False
        transport = self._connection.transport
        if transport is not None and self._connection.writing_paused:
            transport.abort()  # it does not read, so what is written would only lie there
        self._end()

    def answer(self, status: int, content_type: str, body: bytes, lines: bytes = b"") -> None:
        """Answer with a whole page of the router's own."""
        head = b"server: router\r\ncontent-type: %b\r\nx-request-id: %b\r\n%b" % (
            content_type.encode(),
            self.request_id,
            lines,
        )
        sent = b"" if self.method == b"HEAD" else body
        self.start(status, _REASONS.get(status, b""), head, len(body), sent)
        self._end()

    def refuse(self, error: RouterError) -> None:
        """Answer with an error of the router's own."""
        self.write_refusal(error)
        self._end()

    def write_refusal(self, error: RouterError) -> None:
        """Write such an answer, and leave the connection to the caller."""
        self.begun = True
        self._downstream.handler.refusing(self)
        self._downstream.refused(error, self)
        self._write(
            whole_answer(
                error,
                self.dialect,
                self.request_id,
                self.rate_lines,
                self.method,
                connection=_CLOSE if not self.keep else _KEEP if self.old else b"",
            )
        )

    def fail(self, error: RouterError) -> None:
        """End after a fault of the router: by an answer if none has begun, else by a cut."""
        if self.journey is not None:
            self.journey.client_gone()
        if self.begun:
            self.cut()
        else:
            self.keep = False
            self.refuse(error)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to wait in a task, which ends with the client."""
        self._task = self._downstream.loop.create_task(work)
        self._task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        """A fault of the router's ends the exchange, and nothing else."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(fault(error))

    def client_gone(self) -> None:
        """The client has left: end what runs for it."""
        if self._task is not None:
            self._task.cancel()
        asked = self.journey is not None and self.journey.client_gone()
        if not asked and not self.begun:
            self._downstream.left(self)
        self.let_go()

    def _write(self, data: bytes) -> None:
        transport = self._connection.transport
        if transport is not None:
            transport.write(data)

    def _end(self) -> None:
        self.flow = None
        self.let_go()
        self._connection.ended(keep=self.keep)


def fault(error: BaseException | None) -> InternalError:
    """Log a fault of the router's own; gives its answer."""
    _log.error("request_failed", exc_info=error)
    return InternalError("The router failed; its log has the details.")


def whole_answer(
    error: RouterError,
    dialect: Dialect,
    sent_id: bytes | None = None,
    lines: bytes = b"",
    method: bytes = b"GET",
    *,
    connection: bytes = _CLOSE,
) -> bytes:
    """The bytes of an error answer; `connection` is that header's line, if any."""
    body = error_body(error, dialect)
    own = "".join(f"{name}: {value}\r\n" for name, value in error.headers())
    return (
        b"HTTP/1.1 %d %b\r\nserver: router\r\ncontent-type: application/json\r\n"
        b"x-request-id: %b\r\n%b%b%bcontent-length: %d\r\n\r\n%b"
    ) % (
        error.status,
        _REASONS.get(error.status, b""),
        sent_id or request_id(None),
        own.encode(),
        lines,
        connection,
        len(body),
        b"" if method == b"HEAD" else body,
    )


_REASONS = {
    200: b"OK",
    304: b"Not Modified",
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
