"""The connections to one engine: which is used next, and which no more."""

from __future__ import annotations

import asyncio

import pytest

from router.proxy import upstream
from router.proxy.answer import ConnectFailed
from router.proxy.headers import to_downstream
from router.proxy.upstream import UpstreamPool, Upstreams, request_head
from router.proxy.upstream_connection import Target
from unit.proxy.proxy_fakes import UNARY, Heard, opened, pool_of


@pytest.fixture
def clock(monkeypatch):
    """The pool's clock, to be set by a test."""
    now = [1000.0]
    monkeypatch.setattr(upstream, "monotonic", lambda: now[0])
    return now


def used(pool: UpstreamPool):
    """A connection that has carried one exchange and waits for the next."""
    connection, transport = opened(pool)
    connection.send(b"", b"", Heard())
    connection.data_received(UNARY)
    return connection, transport


def test_an_empty_pool_has_none():
    assert pool_of().take_idle() is None


def test_the_connection_used_last_is_used_next(clock):
    pool = pool_of()
    first, second = used(pool)[0], used(pool)[0]
    assert [pool.take_idle(), pool.take_idle(), pool.take_idle()] == [second, first, None]


@pytest.mark.parametrize(("age", "taken"), [(3.9, True), (4.1, False), (100, False)])
def test_a_connection_that_idled_too_long_is_closed_instead_of_used(clock, age, taken):
    pool = pool_of()
    connection, transport = used(pool)
    clock[0] += age
    assert (pool.take_idle() is connection) is taken
    assert transport.aborted is not taken


def test_the_limit_is_below_the_five_seconds_after_which_engines_close():
    assert upstream.IDLE_LIMIT_S < 4.5


def test_a_connection_that_comes_back_to_a_pool_that_is_closed_is_closed():
    """Its engine has left the fleet, so nobody would sweep it."""
    pool = pool_of()
    connection, transport = opened(pool)
    connection.send(b"", b"", Heard())
    pool.close()
    connection.data_received(UNARY)
    assert transport.aborted
    assert pool.idle == 0


def test_a_connection_that_is_closing_is_passed_over(clock):
    pool = pool_of()
    older, _ = used(pool)
    _, transport = used(pool)
    transport.abort()
    assert pool.take_idle() is older


def test_a_connection_that_closed_while_idle_is_forgotten(clock):
    pool = pool_of()
    connection, _ = used(pool)
    connection.connection_lost(None)
    assert (pool.idle, pool.busy) == (0, 0)
    assert pool.take_idle() is None


def test_idle_and_busy_are_told(clock):
    pool = pool_of()
    used(pool)
    opened(pool)
    assert (pool.idle, pool.busy) == (1, 1)
    assert repr(pool) == "<UpstreamPool engine:8000 idle=1 busy=1>"


def test_a_sweep_closes_what_idled_too_long_and_no_other(clock):
    pool = pool_of()
    _, old = used(pool)
    clock[0] += 3
    _, young = used(pool)
    clock[0] += 2
    pool.sweep()
    assert (old.aborted, young.aborted, pool.idle) == (True, False, 1)


def test_close_closes_what_is_idle_and_leaves_what_is_busy(clock):
    pool = pool_of()
    _, idle = used(pool)
    _, busy = opened(pool)
    pool.close()
    assert (idle.aborted, busy.aborted, pool.idle) == (True, False, 0)


async def test_a_connection_is_made_and_counted():
    accepted = asyncio.Event()

    async def accept(_reader, writer):
        accepted.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = UpstreamPool(
        Target.of(f"http://127.0.0.1:{port}"), asyncio.get_running_loop(), to_downstream()
    )
    connection = await pool.connect()
    await asyncio.wait_for(accepted.wait(), 5)
    assert not connection.reused
    assert pool.busy == 1
    connection.abort()
    server.close()
    await server.wait_closed()


async def test_a_refused_connection_is_connect_failed():
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    pool = UpstreamPool(
        Target.of(f"http://127.0.0.1:{port}"), asyncio.get_running_loop(), to_downstream()
    )
    with pytest.raises(ConnectFailed):
        await pool.connect()
    assert pool.busy == 0


async def test_a_connection_that_is_never_made_is_connect_failed(monkeypatch):
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.01)

    class Loop:
        async def getaddrinfo(self, *_, **__):
            await asyncio.Event().wait()

    with pytest.raises(ConnectFailed, match=r"0\.01 s"):
        await pool_of(Loop()).connect()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://chat:8000", Target("chat", 8000, False, "chat:8000")),
        ("http://chat", Target("chat", 80, False, "chat")),
        ("https://chat", Target("chat", 443, True, "chat")),
        ("http://[::1]:8000", Target("::1", 8000, False, "[::1]:8000")),
    ],
)
def test_a_target_is_what_the_url_says(url, target):
    assert Target.of(url) == target


def test_a_url_has_one_pool():
    pools = Upstreams(None)
    assert pools.pool("http://a:1") is pools.pool("http://a:1")
    assert pools.pool("http://a:1") is not pools.pool("http://b:1")


def test_the_pools_of_engines_that_are_gone_are_closed_and_dropped(clock):
    pools = Upstreams(None)
    kept, dropped = pools.pool("http://a:1"), pools.pool("http://b:1")
    _, open_still = used(kept)
    _, closed = used(dropped)
    pools.retain(["http://a:1"])
    assert (open_still.aborted, closed.aborted) == (False, True)
    assert pools.pool("http://a:1") is kept
    assert pools.pool("http://b:1") is not dropped


def test_counts_are_over_all_pools(clock):
    pools = Upstreams(None)
    used(pools.pool("http://a:1"))
    used(pools.pool("http://b:1"))
    opened(pools.pool("http://b:1"))
    assert pools.counts() == (2, 1)
    clock[0] += 10
    pools.sweep()
    assert pools.counts()[0] == 0
    pools.close()


def test_a_request_head_has_its_own_framing_and_the_engines_key():
    start = pool_of().start_of("/v1/x", "k")
    head = request_head(start, b"accept: a\r\n", 12, b"id-1")
    first, *lines, end, last = head.split(b"\r\n")
    assert first == b"POST /v1/x HTTP/1.1"
    assert sorted(lines) == [
        b"accept: a", b"authorization: Bearer k", b"content-length: 12", b"host: engine:8000",
        b"x-request-id: id-1",
    ]  # fmt: skip
    assert (end, last) == (b"", b"")


def test_without_a_key_no_authorization_is_sent():
    assert b"authorization" not in request_head(pool_of().start_of("/", None), b"", 0)


def test_a_new_key_counts_at_once():
    pool = pool_of()
    pool.start_of("/", "old")
    assert b"Bearer new" in pool.start_of("/", "new")


def test_every_request_tells_an_engine_which_router_sent_it():
    start = Upstreams(None, "i-1").pool("http://a:1").start_of("/tokenize", "k")
    assert start.endswith(b"\r\nx-router-via: i-1\r\n")
