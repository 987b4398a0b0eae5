"""WebSockets on a client's connection: the handshake, frames, and who is cut."""

from __future__ import annotations

from time import monotonic

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from router.errors import MissingApiKey
from router.proxy.websocket import WebSocket, handshake
from unit.proxy.client_fakes import GET, Answering, Client, ClientTransport, head, later

PATH = "/live"


class Handler(Answering):
    """Takes `/live` over; everything else is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets: list[WebSocket] = []
        self.upgrade_error: Exception | None = None

    def upgrade(self, exchange):
        if exchange.path != PATH:
            return None
        if self.upgrade_error is not None:
            raise self.upgrade_error
        return handshake(exchange.path, exchange.header, self.sockets.append)


class Socketed(ClientTransport):
    """A transport that hands over to another protocol."""

    protocol = None

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol


class Browser:
    """A WebSocket client without a network, and the router's end of its connection."""

    def __init__(self, path: str = PATH) -> None:
        self.handler = Handler()
        self.client = Client(self.handler)
        self.transport = Socketed("10.0.0.1")
        self.connection = self.client.downstream()
        self.connection.connection_made(self.transport)
        self.peer = ClientProtocol(parse_uri(f"ws://h{path}"))
        self.frames: list[Frame] = []

    def open(self, *, more: bytes = b"", cut: int = 10_000) -> WebSocket:
        self.peer.send_request(self.peer.connect())
        sent = b"".join(self.peer.data_to_send()) + more
        for at in range(0, len(sent), cut):
            self.connection.data_received(sent[at : at + cut])
        self.read()
        (socket,) = self.handler.sockets
        return socket

    def read(self) -> list[Frame]:
        """Frames that have come since the last time."""
        data, self.transport.written = self.transport.written, b""
        self.peer.receive_data(data)
        new = [event for event in self.peer.events_received() if isinstance(event, Frame)]
        self.frames += new
        return new

    def flush(self) -> None:
        """Send what the client has to say."""
        for data in self.peer.data_to_send():
            if data:
                self.transport.protocol.data_received(data)


@pytest.fixture
def browser() -> Browser:
    return Browser()


# -- the handshake ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [7, 10_000])
def test_a_handshake_opens_a_websocket(browser, cut):
    browser.open(cut=cut)
    assert browser.peer.state is State.OPEN


def test_the_connection_is_no_longer_one_of_requests(browser):
    browser.open()
    assert browser.client.downstream.count == 1  # the one that `Client` made
    browser.client.downstream.sweep(monotonic() + 1000)
    assert not browser.transport.is_closing()


def test_frames_that_come_with_the_handshake_are_read(browser):
    masked_ping = b"\x89\x80\x00\x00\x00\x00"
    browser.open(more=masked_ping)
    assert [frame.opcode for frame in browser.frames] == [Opcode.PONG]


def test_on_another_path_the_request_goes_on_in_http(browser):
    other = Browser("/x")
    other.peer.send_request(other.peer.connect())
    other.connection.data_received(b"".join(other.peer.data_to_send()))
    assert [exchange.path for exchange in other.handler.requests] == ["/x"]
    assert b"HTTP/1.1 200 OK" in other.transport.written


@pytest.mark.parametrize(
    "lines",
    [
        (b"sec-websocket-version: 13",),
        (b"sec-websocket-key: short", b"sec-websocket-version: 13"),
        (b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"sec-websocket-version: 8"),
        (
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"sec-websocket-version: 13",
            b"content-length: 0",
        ),
    ],
)  # fmt: skip
def test_a_handshake_that_is_not_valid_is_refused(browser, lines):
    sent = head(b"connection: upgrade", b"upgrade: websocket", *lines, start=b"GET /live HTTP/1.1")
    browser.connection.data_received(sent)
    assert browser.transport.written.startswith(b"HTTP/1.1 400 ")
    assert browser.handler.sockets == []
    assert browser.transport.ended


def test_who_may_not_is_told_why_and_the_connection_ends(browser):
    browser.handler.upgrade_error = MissingApiKey("log in")
    browser.peer.send_request(browser.peer.connect())
    browser.connection.data_received(b"".join(browser.peer.data_to_send()))
    assert browser.transport.written.startswith(b"HTTP/1.1 401 ")
    assert b"log in" in browser.transport.written
    assert browser.transport.ended


def test_behind_a_request_that_still_runs_nothing_is_handed_over(browser):
    browser.handler.reply = later
    browser.peer.send_request(browser.peer.connect())
    browser.connection.data_received(GET + b"".join(browser.peer.data_to_send()))
    assert browser.handler.sockets == []


# -- messages --------------------------------------------------------------------------------------


def test_a_message_arrives(browser):
    socket = browser.open()
    assert socket.send("grüß".encode())
    (frame,) = browser.read()
    assert (frame.opcode, frame.data) == (Opcode.TEXT, "grüß".encode())


def test_a_client_that_is_behind_is_sent_nothing_more(browser):
    socket = browser.open()
    socket.pause_writing()
    assert not socket.send(b"late")
    assert browser.read() == []
    socket.resume_writing()
    assert socket.send(b"again")


def test_what_a_client_sends_is_ignored(browser):
    browser.open()
    browser.peer.send_text(b"hello")
    browser.flush()
    assert browser.read() == []
    assert not browser.transport.is_closing()


def test_a_large_message_of_a_client_ends_it(browser):
    browser.open()
    browser.peer.send_binary(b"x" * 2000)
    browser.flush()
    (frame,) = browser.read()
    assert frame.opcode is Opcode.CLOSE
    assert browser.peer.close_rcvd.code == 1009
    assert browser.transport.closed


def test_a_ping_is_answered(browser):
    browser.open()
    browser.peer.send_ping(b"abc")
    browser.flush()
    assert [(frame.opcode, frame.data) for frame in browser.read()] == [(Opcode.PONG, b"abc")]


def test_who_pings_and_does_not_read_is_cut(browser):
    socket = browser.open()
    socket.pause_writing()
    browser.peer.send_ping(b"abc")
    browser.flush()
    assert browser.transport.aborted


# -- ends ------------------------------------------------------------------------------------------


def test_a_client_that_closes_is_answered_and_the_connection_ends(browser):
    browser.open()
    browser.peer.send_close(1000)
    browser.flush()
    assert [frame.opcode for frame in browser.read()] == [Opcode.CLOSE]
    assert browser.transport.closed


def test_a_goodbye_is_told_with_its_code(browser):
    socket = browser.open()
    socket.close(1001, "the router ends")
    browser.read()
    assert (browser.peer.close_rcvd.code, browser.peer.close_rcvd.reason) == (
        1001,
        "the router ends",
    )
    browser.flush()
    assert browser.transport.closed


def test_after_a_goodbye_nothing_is_sent(browser):
    socket = browser.open()
    socket.close(1001, "")
    socket.close(1001, "")
    assert not socket.send(b"more")


def test_a_client_that_does_not_answer_a_goodbye_is_cut(browser):
    socket = browser.open()
    socket.close(1001, "")
    socket.check(monotonic() + 1)
    assert not browser.transport.aborted
    socket.check(monotonic() + 3)
    assert browser.transport.aborted


def test_the_end_of_the_connection_is_told(browser):
    told = []
    socket = browser.open()
    socket.on_close = lambda: told.append(True)
    socket.eof_received()
    socket.connection_lost(None)
    assert told == [True]


# -- time ------------------------------------------------------------------------------------------


def test_a_quiet_client_is_pinged(browser):
    socket = browser.open()
    socket.check(monotonic() + 10)
    assert browser.read() == []
    socket.check(monotonic() + 16)
    socket.check(monotonic() + 17)
    assert [frame.opcode for frame in browser.read()] == [Opcode.PING]


def test_one_that_answers_no_ping_is_cut(browser):
    socket = browser.open()
    socket.check(monotonic() + 44)
    assert not browser.transport.aborted
    socket.check(monotonic() + 46)
    assert browser.transport.aborted


def test_one_that_does_not_read_for_long_is_cut_though_it_talks(browser):
    socket = browser.open()
    socket.pause_writing()
    browser.peer.send_text(b"I am here")
    browser.flush()
    socket.check(monotonic() + 14)
    assert not browser.transport.aborted
    socket.check(monotonic() + 16)
    assert browser.transport.aborted
