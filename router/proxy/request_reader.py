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
# Of one read: a request kept as an object takes some 40 times the bytes of the smallest that can be
# sent, and one read may be of 256 KiB.
_PIECE_BYTES = 8 * 1024
_END_OF_HEAD = b"\r\n\r\n"
# As a number: bytes within bytes are looked for by way of an exception that nobody sees.
_COMMA = ord(",")
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})


class RequestReader:
    """Reads the requests of one connection.

    Attributes:
        whole: requests that are whole and wait for their turn, the oldest first.
        incoming: the request that is not whole yet; None between two.
    """

    __slots__ = (
        "_connection", "_downstream", "_head_left", "_headers", "_moved", "_parser", "_target",
        "incoming", "whole",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, downstream: Downstream) -> None:
        self._connection = connection
        self._downstream = downstream
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_left = _MAX_HEAD_BYTES
        self._moved = False
        self.incoming: ClientExchange | None = None
        self.whole: deque[ClientExchange] = deque()

    def __repr__(self) -> str:
        return f"<RequestReader whole={len(self.whole)} incoming={self.incoming is not None}>"

    # -- what the connection does --------------------------------------------------------------

    def read(self, data: bytes) -> bytes:
        """Take what came, but of much only some once a request is whole; gives the rest.

        A request that it made whole is in `whole`.
        """
        size = len(data)
        at = end = 0
        while at < size and (at < _PIECE_BYTES or not self.whole):
            if at == end:  # else it stopped at an upgrade
                end = size if size <= _PIECE_BYTES else self._end_of_piece(data, at)
            at = self._feed(data, at, end)
        incoming = self.incoming
        if incoming is not None and incoming.refusal is not None and at == size:
            self._connection.refuse(incoming.refusal)
        return data[at:]

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

    def _end_of_piece(self, data: bytes, at: int) -> int:
        """Where llhttp is to stop: the end of a head, so that what follows it can be judged.

        Within a body of known length no other request can be, so that it comes in one piece.
        """
        count = _PIECE_BYTES
        incoming = self.incoming
        if incoming is None:
            found = data.find(_END_OF_HEAD, at, at + count)
            if found >= 0:
                return found + len(_END_OF_HEAD)
        elif incoming.refusal is None:
            length = int(incoming.noted.get(b"content-length", b"0"))
            count = max(count, length - incoming.size)
        return min(len(data), at + count)

    def _feed(self, data: bytes, at: int, end: int) -> int:
        """Have llhttp read a piece; gives where to go on, the end of all where nothing is taken."""
        self._moved = False
        piece = data if end - at == len(data) else memoryview(data)[at:end]
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return self._go_on_from_upgrade(data, at + upgrade.args[0])
        except httptools.HttpParserCallbackError as error:
            self._connection.refuse(fault(error.__context__))
        except httptools.HttpParserError:
            self._connection.refuse(BadRequest("The request is not valid HTTP/1.1."))
        else:
            # What is neither body nor the end of a message is bounded: heads, trailers, extensions.
            if self._moved:
                self._head_left = _MAX_HEAD_BYTES
                return at + len(piece)
            self._head_left -= len(piece)
            if self._head_left > 0:
                return at + len(piece)
            self._refuse_head()
        return len(data)

    def _refuse_head(self) -> None:
        incoming = self.incoming
        refusal = incoming.refusal if incoming is not None else None
        self._connection.refuse(refusal or BadRequest("The request's head is too large."))

    def _go_on_from_upgrade(self, data: bytes, at: int) -> int:
        """Have another protocol go on, or HTTP/1.1; gives what `_feed` gives."""
        if not self._hand_over(data, at):
            self._decline_upgrade()
            if not self._connection.lingers:
                return at
        return len(data)

    def _hand_over(self, data: bytes, at: int) -> bool:
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
        upgrade(connection.hand_over(), data[at:])
        return True

    def _decline_upgrade(self) -> None:
        """Go on in HTTP/1.1, as RFC 9110 section 7.8 allows: llhttp has left the body unread."""
        self.incoming = None
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._connection.refuse(BadRequest("This is no tunnel: CONNECT is not taken."))
            return
        version = self._parser.get_http_version().encode()
        lines = b"".join(
            b"%b: %b\r\n" % (name, _without_upgrade(name, value))
            for name, value in self._headers
            if name not in _UPGRADE
        )
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._target, version, lines)
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head, 0, len(head))

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
            exchange.refusal = error.with_traceback(None)  # else each would hold the other
            return
        if b"expect" in exchange.noted and not self.whole:
            self._connection.ask_for_body(exchange)

    def _check_head(self, exchange: ClientExchange) -> None:
        """See to what llhttp leaves to the server: version, host, a body's size and coding."""
        noted = exchange.noted
        version = self._parser.get_http_version()
        exchange.old = version == "1.0"
        if version not in {"1.1", "1.0"}:
            raise BadRequest(f"HTTP/{version} is not taken; use HTTP/1.1.")
        if len(self._headers) > _MAX_HEADERS:
            raise BadRequest(f"The request has more than {_MAX_HEADERS} headers.")
        if (b"host" not in noted and not exchange.old) or _COMMA in noted.get(b"host", b""):
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
