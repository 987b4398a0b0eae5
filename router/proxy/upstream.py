"""Connections to engines: one protocol object a connection, one keep-alive pool an engine.

No task, queue or stream reader: what arrives is framed by llhttp and handed to the listener in
the same callback. Every foreign failure becomes an `UpstreamError` here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from router.proxy.headers import HeaderFilter, to_downstream

IDLE_LIMIT_S = 4.0
"""vLLM (uvicorn) closes a connection that is idle for 5 s, without a word."""
CONNECT_TIMEOUT_S = 5.0
_MAX_HEAD_BYTES = 256 * 1024
_JOIN_LIMIT_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})


class UpstreamError(Exception):
    """An exchange that the engine did not finish. `kind` is a metrics label."""

    kind = "error"


class ConnectFailed(UpstreamError):
    """No connection could be made."""

    kind = "connect"


class Disconnected(UpstreamError):
    """The connection ended before the answer did."""

    kind = "disconnect"


class MalformedAnswer(UpstreamError):
    """What came is not HTTP/1.1."""

    kind = "malformed"


class Head(msgspec.Struct, frozen=True):
    """An answer's head.

    Attributes:
        status: of the status line.
        reason: of the status line, perhaps empty.
        lines: the header lines that cross, each ended by CRLF.
        length: the body's content-length in bytes, None where it is framed otherwise.
        streams: the body is a stream of events.
        retry_after: the header of that name, as it came.
    """

    status: int
    reason: bytes
    lines: bytes
    length: int | None
    streams: bool
    retry_after: bytes | None


class Listener(Protocol):
    """Who is told of an answer, in order: head, data (any number), then end or broken."""

    def on_head(self, head: Head) -> None:
        """The final head; interim ones (1xx) are not told."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body, without framing: all that one read brought."""

    def on_end(self) -> None:
        """The answer is whole."""

    def on_broken(self, error: UpstreamError) -> None:
        """It will not be whole."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to an engine: idle in its pool, or busy with one exchange.

    Attributes:
        reused: it has carried an exchange before this one.
        idle_since: monotonic time of its latest end of an exchange.
        on_closed: called once when it has closed; None: nobody wants to know.
    """

    __slots__ = (
        "_complete", "_eof_ends_body", "_framing_left", "_head", "_head_bytes", "_headers",
        "_listener", "_parser", "_paused", "_pieces", "_pool", "_reason", "_reusable", "_transport",
        "idle_since", "on_closed", "reused",
    )  # fmt: skip

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._head_bytes = 0
        self._framing_left = 0
        self._pieces: list[bytes] = []
        self._complete = False
        self._reusable = True
        self._eof_ends_body = False
        self._paused = False
        self.reused = False
        self.idle_since = 0.0
        self.on_closed: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "busy" if self._listener else "idle"
        return f"<UpstreamConnection {self._pool.target.authority} {state}>"

    # -- what the owner does ---------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def is_unanswered(self) -> bool:
        """Not a byte has come since the latest `send`."""
        return self._head_bytes == _MAX_HEAD_BYTES

    def send(self, head: bytes, body: bytes, listener: Listener) -> None:
        """Send a whole request; its answer goes to `listener`."""
        assert self._listener is None
        assert self._transport is not None
        self._listener = listener
        self._complete = False
        self._eof_ends_body = False
        self._head_bytes = self._framing_left = _MAX_HEAD_BYTES
        if len(body) <= _JOIN_LIMIT_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def abort(self) -> None:
        """Close at once, tell nobody: an engine stops generating when its client goes."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more until `resume`: the client does not keep up."""
        if not self._paused and not self.is_closed:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self.is_closed:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    # -- what the transport tells ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there (asyncio and uvloop set TCP_NODELAY)."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended: in time, where an exchange was complete or its body ends so, else not."""
        self._transport = None
        self._pool.forget(self)
        if self.on_closed is not None:
            self.on_closed()
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._eof_ends_body and exc is None:
            listener.on_end()
        else:
            listener.on_broken(Disconnected(str(exc) if exc else "closed by the engine"))

    def data_received(self, data: bytes) -> None:
        """Frame what came, hand on the body's bytes, and end the exchange if this was its end."""
        if self._listener is None:
            self.abort()  # bytes that nobody asked for: never the start of a next answer
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reusable = False
            if not self._complete:
                self._give_up(MalformedAnswer(str(error) or type(error).__name__))
                return
        if self._head_bytes:
            self._take_head(len(data))
        pieces = self._pieces
        if pieces and self._listener is not None:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._listener.on_data(body)
        elif not self._complete and not self._head_bytes:
            self._take_framing(len(data))
        if self._complete:
            self._end()

    def _take_head(self, count: int) -> None:
        """Hand on the head if it is whole by now; `count` more bytes of it were read."""
        head, self._head = self._head, None
        if head is not None:
            self._head_bytes = 0
            if self._listener is not None:
                self._listener.on_head(head)
            return
        self._head_bytes -= count
        if self._head_bytes <= 0:
            self._give_up(MalformedAnswer(f"a head of over {_MAX_HEAD_BYTES} bytes"))

    def _take_framing(self, count: int) -> None:
        """Bound what is neither head nor body: trailers, extensions of chunks."""
        self._framing_left -= count
        if self._framing_left <= 0:
            self._give_up(MalformedAnswer(f"trailers of over {_MAX_HEAD_BYTES} bytes"))

    def _give_up(self, error: UpstreamError) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.on_broken(error)

    def _end(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:  # given up while its last bytes were handed on
            return
        if self._reusable and not self.is_closed:
            self.resume()
            self.reused = True
            self._pool.give_back(self)
        else:
            self.abort()
        listener.on_end()

    # -- what llhttp tells -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins: the first, one after an interim answer, or one too many."""
        if self._complete:
            self._reusable = False
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; trailers go no further."""
        if self._head_bytes:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole; interim ones (1xx) are left out."""
        status = self._parser.get_status_code()
        if status < 200 or self._complete:
            return
        lines, noted = self._pool.headers.split(self._headers)
        self._headers = []
        told = noted.get(b"content-length")
        length = int(told) if told is not None else None
        if status in _NO_BODY:
            length = 0
        self._reusable = self._parser.should_keep_alive()
        self._eof_ends_body = length is None and b"transfer-encoding" not in noted
        streams = noted.get(b"content-type", b"").startswith(b"text/event-stream")
        retry_after = noted.get(b"retry-after")
        self._head = Head(status, self._reason, lines, length, streams, retry_after)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without framing."""
        if not self._complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The end of an answer, if not of an interim one."""
        if self._parser.get_status_code() >= 200:
            self._complete = True


@dataclass(frozen=True, slots=True)
class Target:
    """Where an engine listens, taken from its base URL.

    Attributes:
        host, port: to connect to.
        tls: whether the URL was https.
        authority: for the `Host` header.
    """

    host: str
    port: int
    tls: bool
    authority: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Take `http://host:port` or `https://host:port` apart."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.netloc)


def request_head(start: bytes, lines: bytes, length: int, request_id: bytes | None = None) -> bytes:
    """The head of a POST to an engine: written anew, with its own framing.

    Args:
        start: request line, host and key, see `UpstreamPool.start_of`.
        lines: further header lines, each ended by CRLF.
        length: of the body in bytes.
        request_id: told to the engine; None: it makes its own.
    """
    if request_id is None:
        return b"%b%bcontent-length: %d\r\n\r\n" % (start, lines, length)
    return b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        start,
        lines,
        request_id,
        length,
    )


class UpstreamPool:
    """The connections to one engine. Bounded by what runs at once, not by a number of its own.

    The connection used last is used next, so that the others age and go.
    """

    def __init__(
        self, target: Target, loop: asyncio.AbstractEventLoop, headers: HeaderFilter
    ) -> None:
        self.target = target
        self.headers = headers
        self._loop = loop
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        self._tls = ssl.create_default_context() if target.tls else None
        self._starts: dict[tuple[str, str | None], bytes] = {}

    def __repr__(self) -> str:
        return f"<UpstreamPool {self.target.authority} idle={self.idle} busy={self.busy}>"

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections that carry one."""
        return len(self._open) - len(self._idle)

    def start_of(self, path: str, key: str | None) -> bytes:
        """The first lines of a POST to `path` with the engine's key; made once for each."""
        start = self._starts.get((path, key))
        if start is None:
            told = f"authorization: Bearer {key}\r\n" if key else ""
            start = f"POST {path} HTTP/1.1\r\nhost: {self.target.authority}\r\n{told}".encode()
            self._starts[path, key] = start
        return start

    def take_idle(self) -> UpstreamConnection | None:
        """A connection that may be used again, or None."""
        oldest = monotonic() - IDLE_LIMIT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closed:
                continue
            if connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a new connection.

        Raises:
            ConnectFailed: refused, not resolved, no TLS, or not there in time.
        """
        connection = UpstreamConnection(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(
                    lambda: connection,
                    self.target.host,
                    self.target.port,
                    ssl=self._tls,
                )
        except TimeoutError:
            self._drop(connection)
            raise ConnectFailed(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except OSError as error:
            self._drop(connection)
            raise ConnectFailed(error.strerror or str(error)) from error
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        return connection

    def _drop(self, connection: UpstreamConnection) -> None:
        """Forget a connection that nobody waits for any more; uvloop does not tell of its end."""
        connection.abort()
        self.forget(connection)

    def opened(self, connection: UpstreamConnection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange has ended whole."""
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = monotonic() - IDLE_LIMIT_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().abort()

    def close(self) -> None:
        """Close what is idle; what is busy ends with its exchange's owner."""
        while self._idle:
            self._idle.pop().abort()


class Upstreams:
    """The pools of all engines, by base URL, so that a rename keeps them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._headers = to_downstream()
        self._pools: dict[str, UpstreamPool] = {}

    def pool(self, url: str) -> UpstreamPool:
        """The pool of the engine at `url`."""
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = UpstreamPool(Target.of(url), self._loop, self._headers)
        return pool

    def retain(self, urls: Iterable[str]) -> None:
        """Close the pools of engines that are no longer in the fleet."""
        for url in self._pools.keys() - set(urls):
            self._pools.pop(url).close()

    def sweep(self) -> None:
        """Close every connection that has been idle for too long."""
        for pool in self._pools.values():
            pool.sweep()

    def counts(self) -> tuple[int, int]:
        """(idle, busy) connections of all pools."""
        pools = self._pools.values()
        return sum(pool.idle for pool in pools), sum(pool.busy for pool in pools)

    def close(self) -> None:
        """Close every idle connection."""
        self.retain(())
