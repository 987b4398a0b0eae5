"""A connection to an engine whose host is a name: which address it gets, and what is left of it."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from router.proxy import upstream
from router.proxy.answer import ConnectFailed
from router.proxy.headers import to_downstream
from router.proxy.upstream import UpstreamPool
from router.proxy.upstream_connection import Target

LOOPS = [asyncio.new_event_loop]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(uvloop.new_event_loop)


class NamedLoop:
    """The running loop, but for what names lead to."""

    def __init__(self, *listeners: socket.socket) -> None:
        self.looked_up = 0
        self._listeners = listeners

    async def getaddrinfo(self, *_, **__):
        self.looked_up += 1
        stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*stream, each.getsockname()) for each in self._listeners]

    def __getattr__(self, name):
        return getattr(asyncio.get_running_loop(), name)


@pytest.fixture(params=LOOPS, ids=lambda factory: factory.__module__)
def run(request):
    """Runs a test's coroutine on each kind of loop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def sockets():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listening(sockets) -> socket.socket:
    return sockets.enter_context(socket.create_server(("127.0.0.1", 0)))


@pytest.fixture
def refusing(sockets) -> socket.socket:
    """Bound, so that nobody else gets its port, and not listening."""
    sock = sockets.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
def silent(sockets) -> socket.socket:
    """An address that drops SYNs: its queue is full."""
    sock = sockets.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    for _ in range(3):
        filler = sockets.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(sock.getsockname())
    return sock


def pool_at(loop, url: str = "http://engine.example:8000") -> UpstreamPool:
    return UpstreamPool(Target.of(url), loop, to_downstream())


def descriptors() -> int:
    """How many sockets are open; libuv opens one file of its own, once."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own
            found += str(entry.readlink()).startswith("socket:")
    return found


async def back_to(count: int) -> bool:
    """Whether no more sockets are open than that, or soon."""
    for _ in range(50):
        if descriptors() <= count:
            return True
        await asyncio.sleep(0.02)
    return False


def test_an_address_that_drops_what_it_gets_does_not_hold_up_the_next(run, silent, listening):
    async def connect():
        before = time.monotonic()
        connection = await pool_at(NamedLoop(silent, listening)).connect()
        taken = time.monotonic() - before
        connection.abort()
        return taken

    assert run(connect()) < 2


def test_an_address_that_refuses_is_followed_by_the_next(run, refusing, listening):
    async def connect():
        pool = pool_at(NamedLoop(refusing, listening))
        connection = await pool.connect()
        counted = pool.busy
        connection.abort()
        return counted

    assert run(connect()) == 1


def test_a_connection_to_a_name_sends_at_once(run, listening):
    async def connect():
        loop = NamedLoop(listening)
        pool = pool_at(loop)
        connection = await pool.connect()
        sock = connection._transport.get_extra_info("socket")
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.abort()
        return told

    assert run(connect()) == 1


def test_a_name_whose_addresses_refuse_is_told_in_the_words_of_the_os(run, refusing, sockets):
    other = sockets.enter_context(socket.socket())
    other.bind(("127.0.0.1", 0))

    async def connect():
        with pytest.raises(ConnectFailed, match=r"^Connection refused$"):
            await pool_at(NamedLoop(refusing)).connect()
        with pytest.raises(ConnectFailed, match="refused"):
            await pool_at(NamedLoop(refusing, other)).connect()

    run(connect())


def test_a_name_without_addresses_is_told(run):
    async def connect():
        with pytest.raises(ConnectFailed, match="no address"):
            await pool_at(NamedLoop()).connect()

    run(connect())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_address_is_not_looked_up(run, refusing, host):
    async def connect():
        loop = NamedLoop()
        port = refusing.getsockname()[1]
        with pytest.raises(ConnectFailed, match=r"[Rr]efused|Connect call failed"):
            await pool_at(loop, f"http://{host}:{port}").connect()
        return loop.looked_up

    assert run(connect()) == 0


def test_the_whole_stays_within_its_time_and_leaves_nothing_open(
    run, silent, refusing, monkeypatch
):
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.6)

    async def connect():
        before = descriptors()
        with pytest.raises(ConnectFailed, match=r"no connection within 0\.6 s"):
            await pool_at(NamedLoop(silent, silent, refusing)).connect()
        return await back_to(before)

    assert run(connect())


@pytest.mark.parametrize("addresses", [1, 2])
def test_a_client_that_leaves_meanwhile_leaves_nothing_open(run, silent, addresses):
    async def connect():
        before = descriptors()
        pool = pool_at(NamedLoop(*[silent] * addresses))
        task = asyncio.create_task(pool.connect())
        await asyncio.sleep(0.4)
        assert descriptors() == before + addresses
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await back_to(before), pool.busy

    assert run(connect()) == (True, 0)


def test_addresses_that_refuse_leave_nothing_open(run, refusing):
    async def connect():
        before = descriptors()
        with pytest.raises(ConnectFailed):
            await pool_at(NamedLoop(refusing, refusing)).connect()
        return await back_to(before)

    assert run(connect())


def test_addresses_that_come_too_late_leave_nothing_open(run, listening):
    """The first wins, and what the second was about to be is closed."""

    async def connect():
        before = descriptors()
        for _ in range(20):
            connection = await pool_at(NamedLoop(listening, listening)).connect()
            connection.abort()
        return await back_to(before)

    assert run(connect())


def test_a_tls_engine_is_asked_for_by_its_name(run, listening, monkeypatch):
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.5)

    async def connect():
        with pytest.raises(ConnectFailed):
            await pool_at(NamedLoop(listening), "https://engine.example:8000").connect()

    run(connect())
    accepted, _ = listening.accept()
    with accepted:
        assert b"engine.example" in accepted.recv(4096)


def test_a_tls_handshake_that_hangs_leaves_nothing_open(run, listening, monkeypatch):
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.3)

    async def connect():
        before = descriptors()
        with pytest.raises(ConnectFailed, match=r"no connection within 0\.3 s"):
            await pool_at(NamedLoop(listening), "https://engine.example:8000").connect()
        return await back_to(before)

    assert run(connect())


def test_a_tls_handshake_that_fails_leaves_nothing_open(run):
    async def answer(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def connect():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            before = descriptors()
            loop = NamedLoop(server.sockets[0])
            with pytest.raises(ConnectFailed, match=r"SSL|TLS|WRONG_VERSION"):
                await pool_at(loop, "https://engine.example:8000").connect()
            return await back_to(before)

    assert run(connect())
