"""Bytes of a client in, requests out: llhttp frames them, and what it leaves to a server is here.

When a request is answered, and what becomes of one that does not come, is the connection's matter.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httptools

from router.errors import BadRequest, RequestTooLarge, RouterError
from router.proxy.client import ClientExchange, fault

if TYPE_CHECKING:
    from router.proxy.connection import ClientConnection
    from router.proxy.downstream import Downstream

_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 128
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})


class RequestReader:
    """Reads the requests of one connection.

    Attributes:
        whole: requests that are whole and wait for their turn, the oldest first.
        incoming: the request that is not whole yet; None between two.
    """

    __slots__ = (
        "_connection", "_downstream", "_head_left", "_headers", "_moved", "_parser", "_read",
        "_target", "incoming", "whole",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, downstream: Downstream) -> None:
        self._connection = connection
        self._downstream = downstream
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_left = _MAX_HEAD_BYTES
        self._moved = False
        self._read = 0
        self.incoming: ClientExchange | None = None
        self.whole: deque[ClientExchange] = deque()

    def __repr__(self) -> str:
        return f"<RequestReader whole={len(self.whole)} incoming={self.incoming is not None}>"

    # -- what the connection does --------------------------------------------------------------

    def read(self, data: bytes) -> None:
        """Take what came; a request that it made whole is in `whole`."""
        rest: bytes | None = data
        while rest is not None:  # not by recursion: one read may hold very many upgrades
            rest = self._feed(rest)

    def drop(self) -> ClientExchange | None:
        """Let go of the request that is not whole, and give it back."""
        exchange, self.incoming = self.incoming, None
        if exchange is not None:
            exchange.let_go()
        return exchange

    def forget(self) -> None:
        """Let go of what was asked and will not be answered."""
        while self.whole:
            self.whole.popleft().let_go()
        self.drop()

    # -- what one read brought -----------------------------------------------------------------

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
            self._connection.refuse(fault(error.__context__))
        except httptools.HttpParserError:
            self._connection.refuse(BadRequest("The request is not valid HTTP/1.1."))
        else:
            self._check_progress(len(data))
        return None

    def _check_progress(self, count: int) -> None:
        """Bound what is neither body nor the end of a message: heads, trailers, extensions."""
        incoming = self.incoming
        if incoming is not None and incoming.refusal is not None:
            self._connection.refuse(incoming.refusal)
        elif self._moved:
            self._head_left = _MAX_HEAD_BYTES
        else:
            self._head_left -= count
            if self._head_left <= 0:
                self._connection.refuse(BadRequest("The request's head is too large."))

    def _hand_over(self, rest: bytes) -> bool:
        """Leave the connection to who speaks the other protocol; False where nobody does.

        What waits for its answer on the connection is in HTTP/1.1: then this goes on so, too.
        """
        connection = self._connection
        if self.whole or connection.transport is None:
            return False
        method = self._parser.get_method()
        exchange = ClientExchange(connection, self._downstream, method, self._target, self._headers)
        if b"upgrade" not in exchange.noted:
            return False
        try:
            self._check_head(exchange)
            upgrade = self._downstream.handler.upgrade(exchange)
        except RouterError as error:
            self.incoming = exchange
            connection.refuse(error)
            return True
        if upgrade is None:
            return False
        upgrade(connection.hand_over(), rest)
        return True

    def _decline_upgrade(self, rest: bytes) -> bytes | None:
        """Go on in HTTP/1.1, as RFC 9110 section 7.8 allows: llhttp has left the body unread.

        Gives what is to be read in its place; None where nothing is.
        """
        self.incoming = None
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._connection.refuse(BadRequest("This is no tunnel: CONNECT is not taken."))
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

    # -- what llhttp tells ---------------------------------------------------------------------

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
        if self.incoming is None:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole: take the request, or remember why not."""
        parser = self._parser
        if parser.should_upgrade():
            return
        exchange = ClientExchange(
            self._connection, self._downstream, parser.get_method(), self._target, self._headers
        )
        self.incoming = exchange
        if not parser.should_keep_alive():
            exchange.keep = False
        try:
            self._check_head(exchange)
            self._downstream.handler.head(exchange)
        except RouterError as error:
            exchange.refusal = error
            return
        if b"expect" in exchange.noted and not exchange.old and not self.whole:
            self._connection.ask_for_body()

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
        exchange.due = exchange.started + limits.body_timeout_s
        length = noted.get(b"content-length")
        if length is not None and int(length) > limits.max_body_bytes:
            raise RequestTooLarge(f"The request's body is over {limits.max_body_mb} MiB.")

    def _head_size(self) -> int:
        return len(self._target) + sum(len(name) + len(value) for name, value in self._headers)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._moved = True
        exchange = self.incoming
        if exchange is not None and exchange.refusal is None:
            exchange.refusal = exchange.add(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._moved = True
        exchange, self.incoming = self.incoming, None
        if exchange is not None:
            self.whole.append(exchange)


def _without_upgrade(name: bytes, value: bytes) -> bytes:
    """A header's value; that of `connection` without the options of an upgrade."""
    if name != b"connection":
        return value
    options = [option.strip() for option in value.split(b",")]
    return b", ".join(option for option in options if option.lower() not in _UPGRADE)
