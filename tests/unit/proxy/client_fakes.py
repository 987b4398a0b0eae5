"""A client of the router: its socket, and a handler that answers what it asks."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from router.config.settings import ServerSettings
from router.proxy.client import ClientExchange
from router.proxy.downstream import Downstream
from unit.proxy.proxy_fakes import FakeTransport

GET = b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n"
)


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % path.encode()


def head(*lines: bytes, start: bytes = b"POST /x HTTP/1.1") -> bytes:
    """A head of these lines; `host` goes without saying."""
    return b"\r\n".join([start, b"host: h", *lines, b"", b""])


BODY_TO_COME = head(b"content-length: 9")


class ClientTransport(FakeTransport):
    """The router's end of a client's socket; nothing may be written once it is closed."""

    def __init__(self, peer: str) -> None:
        super().__init__()
        self.peer = peer
        self.ended = False
        self.closed = False
        self.writes = 0

    def get_extra_info(self, name, default=None):
        return (self.peer, 4711) if name == "peername" else default

    def write(self, data) -> None:
        assert not self.ended
        assert not self.is_closing()
        self.writes += 1
        super().write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted


class Journey:
    """Told when its client leaves."""

    def __init__(self) -> None:
        self.told = 0

    def client_gone(self) -> None:
        self.told += 1


class Turns:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self._next: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._next.append(callback)

    def turn(self) -> bool:
        """Run what was to be called soon; False where that was nothing."""
        due, self._next = self._next, []
        for callback in due:
            callback()
        return bool(due)


class Answering:
    """A handler that answers at once with the path and the body that were sent."""

    def __init__(self) -> None:
        self.heads: list[ClientExchange] = []
        self.requests: list[ClientExchange] = []
        self.refusal: Callable[[ClientExchange], Exception | None] = lambda _: None
        self.late_refusal: Callable[[ClientExchange], Exception | None] = lambda _: None
        self.reply: Callable[[ClientExchange], None] = echo

    def head(self, exchange: ClientExchange) -> None:
        self.heads.append(exchange)
        error = self.refusal(exchange)
        if error is not None:
            raise error

    def again(self, exchange: ClientExchange) -> None:
        error = self.late_refusal(exchange)
        if error is not None:
            raise error

    def request(self, exchange: ClientExchange) -> None:
        self.requests.append(exchange)
        self.reply(exchange)

    def refusing(self, exchange: ClientExchange) -> None:
        """Nobody here has a key or a form."""

    def upgrade(self, exchange: ClientExchange) -> None:
        """None: nobody here speaks another protocol."""


def echo(exchange: ClientExchange) -> None:
    exchange.answer(200, "text/plain", f"{exchange.path} ".encode() + exchange.body)


def later(_: ClientExchange) -> None:
    """The answer takes its time: the test gives it."""


@dataclass
class Got:
    """An answer, as the client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Unclosed(io.BytesIO):
    def close(self) -> None: ...


class Client:
    """A connection to the router."""

    def __init__(self, handler: Answering | None = None, *, peer="10.0.0.1", **settings) -> None:
        self.handler = handler or Answering()
        self.loop = Turns()
        server = ServerSettings(**settings)
        self.downstream = Downstream(self.handler, lambda: server, self.loop)
        self._unsent: list[bytes] = []
        self.peer = peer
        self.connect()

    def connect(self) -> None:
        """One more connection; the one before stays open."""
        self.connection = self.downstream()
        self.transport = ClientTransport(self.peer)
        self.connection.connection_made(self.transport)

    def send(self, *reads: bytes) -> None:
        """Send, cut into these reads; what the router does not read waits."""
        self._unsent += reads
        self._deliver()

    def _deliver(self) -> None:
        while self._unsent and self.transport.reading and not self.transport.is_closing():
            self.connection.data_received(self._unsent.pop(0))

    def wait(self) -> None:
        """Let the router do all it can."""
        while self.loop.turn():
            self._deliver()

    def ask(self, *reads: bytes) -> list[Got]:
        """Send, wait, and read what has been answered so far."""
        self.send(*reads)
        self.wait()
        return self.got()

    def got(self, *methods: str) -> list[Got]:
        """The answers so far, to GET or to these methods."""
        stream = _Unclosed(self.transport.written)
        asked = iter(methods)
        found = []
        while stream.tell() < len(self.transport.written):
            answer = http.client.HTTPResponse(_Socket(stream), method=next(asked, "GET"))
            answer.begin()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            found.append(Got(answer.status, headers, answer.read()))
        return found

    def leave(self) -> None:
        """The client closes its connection."""
        self.transport.aborted = True
        self.connection.connection_lost(None)

    def check(self, after_s: float) -> None:
        """Have the router look so much later at what waits."""
        self.downstream.sweep(monotonic() + after_s)

    @property
    def lingers(self) -> bool:
        """The router has said all it will say, and waits for the client to close."""
        return self.transport.ended and not self.transport.is_closing()

    @property
    def is_open(self) -> bool:
        """Another request may be sent."""
        return not self.transport.ended and not self.transport.is_closing()


class _Socket:
    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BytesIO:
        return self._stream


def waiting_client(**settings) -> Client:
    """A client whose answers the test gives."""
    handler = Answering()
    handler.reply = later
    return Client(handler, **settings)
