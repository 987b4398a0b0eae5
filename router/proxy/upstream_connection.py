"""One connection to an engine: one protocol object, and where it leads.

No task, queue or stream reader: what arrives is framed by llhttp and handed to the listener in
the same callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from router.proxy.answer import Disconnected, Head, Listener, MalformedAnswer, UpstreamError
from router.proxy.headers import HeaderFilter

_MAX_HEAD_BYTES = 256 * 1024
_JOIN_LIMIT_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})


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


class Owner(Protocol):
    """Who has a connection, and is told what becomes of it.

    Attributes:
        target: where it leads.
        headers: says which of an answer's headers cross.
    """

    target: Target
    headers: HeaderFilter

    def opened(self, connection: UpstreamConnection) -> None:
        """It is there."""

    def give_back(self, connection: UpstreamConnection) -> None:
        """Its exchange has ended whole: it may carry another."""

    def forget(self, connection: UpstreamConnection) -> None:
        """It has closed."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to an engine: idle with its owner, or busy with one exchange.

    Attributes:
        reused: it has carried an exchange before this one.
        idle_since: monotonic time of its latest end of an exchange.
        on_closed: called once when it has closed; None: nobody wants to know.
    """

    __slots__ = (
        "_complete", "_eof_ends_body", "_framing_left", "_head", "_head_bytes", "_headers",
        "_listener", "_owner", "_parser", "_paused", "_pieces", "_reason", "_reusable",
        "_transport", "idle_since", "on_closed", "reused",
    )  # fmt: skip

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
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
        return f"<UpstreamConnection {self._owner.target.authority} {state}>"

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
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended: in time, where an exchange was complete or its body ends so, else not."""
        self._transport = None
        self._owner.forget(self)
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
            self._owner.give_back(self)
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
        lines, noted = self._owner.headers.split(self._headers)
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
