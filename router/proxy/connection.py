"""Connections from clients: one protocol object a connection, one request after the other.

A request is handed on when it is whole, in the callback that read its last byte, and its answer is
written in the callback that read it from the engine: no task, queue or stream in between. What a
client sends ahead waits, as bytes and bounded, until its turn.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import TYPE_CHECKING, cast

from router.access.keyring import Badge
from router.errors import Draining, RequestTimeout, RouterError
from router.limits.address import parse
from router.limits.rate import key_of
from router.openai.paths import Dialect
from router.proxy.client import ClientExchange, fault, whole_answer
from router.proxy.request_reader import RequestReader

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream

_IDLE_S = 75.0
# Of Linux, include/net/tcp_states.h: both ends, or the peer alone, have closed.
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
_LINGER_S = 2.0
_MAX_AHEAD_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """One connection from a client.

    Attributes:
        transport: to write to; None once the client is gone.
        badge: what it has shown of its key.
        lingers: all is said; what the client still sends is not read.
        peer: the peer's address as text, empty on a Unix socket.
        peer_key: what the rate of that address is counted under.
        writing_paused: the client does not keep up.
    """

    __slots__ = (
        "_ahead", "_current", "_downstream", "_due", "_idle", "_last", "_reader",
        "_reading_paused", "badge", "lingers", "peer", "peer_key", "transport", "writing_paused",
    )  # fmt: skip

    def __init__(self, downstream: Downstream) -> None:
        self._downstream = downstream
        self._reader = RequestReader(self, downstream)
        self._current: ClientExchange | None = None
        self._ahead = bytearray()
        self._reading_paused = False
        self._last: tuple[ClientExchange | None, RouterError] | None = None
        self.lingers = False
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

    @property
    def owes(self) -> bool:
        """Whether a request is let in, by its head or whole, and waits for its turn."""
        reader = self._reader
        return bool(reader.whole) or reader.incoming is not None or self._last is not None

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
        reader = self._reader
        for exchange in (*reader.whole, *((reader.incoming,) if reader.incoming else ())):
            self._downstream.left(exchange)
        reader.forget()
        current, self._current = self._current, None
        if current is not None:
            self._downstream.finished()
            current.client_gone()

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
        if self.lingers:
            return
        if self._current is not None or self._ahead or self._reader.whole or self.writing_paused:
            self._keep_ahead(data)
        else:
            reader = self._reader
            rest = reader.read(data)
            if rest:
                self._keep_ahead(rest)
            if reader.whole:
                self._next()
            elif reader.incoming is not None:
                self._idle = False
                self._due = reader.incoming.due
            elif self._idle:
                self._idle = False
                self._due = monotonic() + self._downstream.settings().header_timeout_s

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _MAX_AHEAD_BYTES and not self._reading_paused:
            assert self.transport is not None
            self._reading_paused = True
            self.transport.pause_reading()

    # -- what its reader asks for --------------------------------------------------------------

    def ask_for_body(self, exchange: ClientExchange) -> None:
        """Tell a client that waits for it to send a body, if no answer is due before."""
        if self._current is None and self.transport is not None and not exchange.old:
            self.transport.write(_CONTINUE)

    def hand_over(self) -> asyncio.Transport:
        """Leave the transport to who goes on with it in another protocol."""
        transport, self.transport = self.transport, None
        assert transport is not None
        self._downstream.closed(self)
        return transport

    # -- one after the other -------------------------------------------------------------------

    def _next(self) -> None:
        exchange = self._current = self._reader.whole.popleft()
        self._downstream.active += 1
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
            return
        try:
            self._downstream.handler.request(exchange)
        except Exception as error:  # noqa: BLE001 - the edge: a fault ends its own request alone
            exchange.fail(fault(error))

    def ended(self, *, keep: bool) -> None:
        """The answer to the present request is written; the next one may come."""
        if self._current is None:  # the client has gone meanwhile
            return
        self._current = None
        if not keep:  # nothing more is owed, which a drain is about to ask
            self._reader.forget()
            self._last = None
        self._downstream.finished()
        transport = self.transport
        if transport is None:
            return
        if not keep:
            self._idle = True  # what is written has as long to arrive as an idle client has
            self._due = 0.0
            self.lingers = True
            transport.close()
        elif self._reader.whole or self._ahead or self._last is not None:
            # Not from within this answer's own callback: a client that sends many requests ahead
            # must not grow the stack with them.
            self._due = 0.0
            self._downstream.loop.call_soon(self._go_on)
        else:
            self._await_more()

    def _await_more(self) -> None:
        """Nothing is left to do: wait for the rest of a request that has begun, or for another."""
        incoming = self._reader.incoming
        self._idle = incoming is None
        self._due = 0.0
        if incoming is not None:  # while the router did not read, its time did not pass
            self._due = incoming.due = monotonic() + self._downstream.settings().body_timeout_s
            if b"expect" in incoming.noted and not incoming.size:
                self.ask_for_body(incoming)

    def _go_on(self) -> None:
        """Take up what was sent ahead."""
        if self._current is not None or self.transport is None or self.writing_paused:
            return
        if self._reader.whole:
            exchange = self._reader.whole[0]
            # What it waited for the answers before it is no time that an engine took.
            exchange.started = monotonic()
            try:
                if exchange.refusal is None:
                    self._downstream.handler.again(exchange)
            except RouterError as error:
                exchange.refusal = error.with_traceback(None)  # else each would hold the other
            self._next()
        elif self._last is not None:
            self._say_last(*self._last)
        elif self._ahead and not self.lingers:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self._await_more()
            self.data_received(ahead)
            self._read_again()

    def _read_again(self) -> None:
        """Have more come in, unless too much is here."""
        if self._reading_paused and len(self._ahead) <= _MAX_AHEAD_BYTES:
            self._reading_paused = False
            if self.transport is not None:
                self.transport.resume_reading()

    # -- ends ----------------------------------------------------------------------------------

    def refuse(self, error: RouterError) -> None:
        """Answer what cannot be read, or must not be, and take nothing more from this client.

        Whole requests that came before it are answered first.
        """
        exchange = self._reader.drop()
        self.lingers = True
        self._idle = False
        self._ahead.clear()
        if self._reader.whole or self._current is not None:
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
            self.transport.write(whole_answer(error, Dialect.OPENAI))
        else:
            exchange.keep = False
            exchange.write_refusal(error)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def check(self, now: float) -> None:
        """End a wait that has been too long, and notice who has left; called by the sweep."""
        if self.transport is None:
            return
        if self._current is not None:
            if self._reading_paused and has_left(self.transport):
                self.transport.abort()
            return
        if not self._due:
            self._due = now + _IDLE_S
        elif now > self._due:
            if self.lingers or self._idle or self.writing_paused:
                self.transport.abort()
            elif self._reader.incoming is not None:
                self.refuse(RequestTimeout("The request's body did not arrive in time."))
            else:
                self.refuse(RequestTimeout("The request's head did not arrive in time."))

    def close(self) -> None:
        """Close, after what is written has gone, for the router ends."""
        if self._current is None and self._reader.incoming is not None:
            self.refuse(Draining("The router is shutting down.", retry_after_s=1))
        if self.transport is not None:
            self.transport.close()


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed, of a connection that is not read.

    Only a read tells of an end otherwise, and nothing is read from who has sent too much ahead.
    """
    try:
        sock = transport.get_extra_info("socket")
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (AttributeError, OSError):  # no Linux, or a Unix socket
        return False
    return state in {_TCP_CLOSE, _TCP_CLOSE_WAIT}
