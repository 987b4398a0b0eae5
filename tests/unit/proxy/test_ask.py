"""A small question of the router's own: one answer, one second try, and no connection misused."""

from __future__ import annotations

import asyncio

import pytest

from router.proxy import ask as ask_module
from router.proxy.answer import ConnectFailed, Disconnected, Head, MalformedAnswer
from router.proxy.ask import ask

HEAD, BODY = b"POST /tokenize HTTP/1.1\r\n\r\n", b'{"prompt":"x"}'


class Line:
    """One connection; plays its answer as soon as it is sent something."""

    def __init__(self, *play) -> None:
        self.play = play
        self.sent = b""
        self.aborted = 0
        self.listener = None

    def send(self, head, body, listener) -> None:
        self.sent = head + body
        self.listener = listener
        for event, value in self.play:
            getattr(listener, event)(*value)

    def abort(self) -> None:
        self.aborted += 1


class Engine:
    """A pool: connections that are idle, and connections to be made."""

    def __init__(self, *new: Line, idle: Line | None = None) -> None:
        self.idle = idle
        self.new = list(new)

    def take_idle(self) -> Line | None:
        idle, self.idle = self.idle, None
        return idle

    async def connect(self) -> Line:
        if not self.new:
            raise ConnectFailed("refused")
        return self.new.pop(0)


def answers(status: int, *pieces: bytes) -> Line:
    head = ("on_head", (Head(status, b"R", b"", None, False, None),))
    return Line(head, *(("on_data", (piece,)) for piece in pieces), ("on_end", ()))


def breaks(error, *before) -> Line:
    return Line(*before, ("on_broken", (error,)))


STARTED = ("on_head", (Head(200, b"OK", b"", None, False, None),))


async def asked(engine: Engine) -> tuple[int, bytes]:
    return await asyncio.wait_for(ask(engine, HEAD, BODY), 5)


async def test_the_status_and_the_whole_body_are_returned():
    line = answers(200, b'{"cou', b'nt":3}')
    assert await asked(Engine(line)) == (200, b'{"count":3}')
    assert line.sent == HEAD + BODY
    assert not line.aborted


async def test_an_answer_of_any_status_is_an_answer():
    assert await asked(Engine(answers(404, b"no"))) == (404, b"no")


async def test_a_connection_that_is_there_is_used():
    idle, new = answers(200, b"idle"), answers(200, b"new")
    assert await asked(Engine(new, idle=idle)) == (200, b"idle")
    assert not new.sent


async def test_a_stale_connection_is_tried_again_on_a_new_one():
    stale = breaks(Disconnected("closed"))
    assert await asked(Engine(answers(200, b"x"), idle=stale)) == (200, b"x")
    assert stale.aborted


async def test_the_second_try_takes_no_idle_connection_again():
    engine = Engine(answers(200, b"x"), idle=breaks(Disconnected("closed")))
    stale, engine.idle = engine.idle, None
    idles = [stale, breaks(Disconnected("closed too"))]
    engine.take_idle = lambda: idles.pop(0)
    assert await asked(engine) == (200, b"x")
    assert len(idles) == 1


async def test_an_answer_that_had_begun_is_not_asked_for_again():
    engine = Engine(answers(200, b"x"), idle=breaks(Disconnected("cut"), STARTED))
    with pytest.raises(Disconnected, match="cut"):
        await asked(engine)
    assert len(engine.new) == 1


async def test_an_answer_that_is_not_http_is_not_asked_for_again():
    line = breaks(MalformedAnswer("garbage"))
    engine = Engine(answers(200), idle=line)
    with pytest.raises(MalformedAnswer):
        await asked(engine)
    assert line.aborted


async def test_an_engine_that_can_not_be_reached_is_an_error():
    with pytest.raises(ConnectFailed):
        await asked(Engine())


async def test_an_answer_over_the_bound_is_an_error_and_ends_the_connection(monkeypatch):
    monkeypatch.setattr(ask_module, "_MAX_ANSWER_BYTES", 10)
    line = answers(200, b"12345", b"678901", b"more")
    with pytest.raises(ask_module.UpstreamError, match="over 10 bytes"):
        await asked(Engine(line))
    assert line.aborted


async def test_an_answer_of_just_the_bound_is_an_answer(monkeypatch):
    monkeypatch.setattr(ask_module, "_MAX_ANSWER_BYTES", 10)
    assert await asked(Engine(answers(200, b"1234567890"))) == (200, b"1234567890")


async def test_whoever_stops_waiting_closes_the_connection():
    silent = Line()
    task = asyncio.create_task(ask(Engine(silent), HEAD, BODY))
    while silent.listener is None:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert silent.aborted


async def test_a_connection_whose_answer_has_ended_is_left_alone_by_a_cancel_of_that_moment():
    line = Line()
    task = asyncio.create_task(ask(Engine(line), HEAD, BODY))
    while line.listener is None:
        await asyncio.sleep(0)
    line.listener.on_head(STARTED[1][0])
    line.listener.on_end()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not line.aborted
