"""How an answer is written to its client: framing, pace, and work that has to wait."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import BadRequest
from unit.proxy.client_fakes import GET, Client, Got, Journey, echo, head, waiting_client

LINES = b"content-type: text/plain\r\n"
OLD = b"GET /x HTTP/1.0\r\n\r\n"


@pytest.fixture
def client() -> Client:
    return waiting_client()


def asked(client: Client, request: bytes = GET):
    """The exchange of a request that waits for its answer."""
    client.send(request)
    client.wait()
    return client.handler.requests[-1]


def answered(client: Client, *pieces: bytes, length=None, status=200, request=GET) -> Got:
    """What the client reads of an answer that is relayed to it in these pieces."""
    exchange = asked(client, request)
    exchange.start(status, b"Reason", LINES, length, pieces[0])
    for piece in pieces[1:]:
        exchange.write(piece)
    exchange.finish()
    return client.got()[-1]


# -- framing ---------------------------------------------------------------------------------------


def test_an_answer_of_a_told_length_is_passed_on_as_it_is(client):
    answer = answered(client, b"ab", b"cde", length=5)
    assert answer.headers == {"content-type": "text/plain", "content-length": "5"}
    assert answer.body == b"abcde"
    assert client.is_open


def test_an_answer_of_no_told_length_is_chunked(client):
    answer = answered(client, b"ab", b"c" * 70_000)
    assert answer.headers == {"content-type": "text/plain", "transfer-encoding": "chunked"}
    assert answer.body == b"ab" + b"c" * 70_000
    assert client.is_open


@pytest.mark.parametrize("length", [None, 0])
def test_an_answer_without_a_body_has_an_end(client, length):
    assert answered(client, b"", length=length).body == b""
    assert answered(client, b"next", length=4).body == b"next"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("length", [None, 0])
def test_an_answer_that_has_no_body_has_no_framing(client, status, length):
    answer = answered(client, b"", length=length, status=status)
    assert answer.headers == {"content-type": "text/plain"}
    assert client.transport.written.endswith(b"\r\n\r\n")
    assert b"\r\n0\r\n" not in client.transport.written
    assert client.is_open


def test_status_and_reason_are_passed_on(client):
    answered(client, b"", status=418)
    assert client.transport.written.startswith(b"HTTP/1.1 418 Reason\r\n")


def test_head_and_first_bytes_are_one_write(client):
    asked(client).start(200, b"OK", LINES, None, b"abc")
    assert client.transport.writes == 1


def test_http_1_0_gets_an_answer_of_no_told_length_up_to_the_end(client):
    answer = answered(client, b"ab", b"cd", request=OLD)
    assert answer.headers == {"content-type": "text/plain", "connection": "close"}
    assert answer.body == b"abcd"
    assert client.transport.closed


def test_http_1_0_that_stays_is_closed_after_an_answer_of_no_told_length(client):
    old = b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    assert answered(client, b"ab", length=2, request=old).headers["connection"] == "keep-alive"
    assert answered(client, b"ab", request=old).headers["connection"] == "close"
    assert client.transport.closed


@pytest.mark.parametrize("length", [None, 3])
def test_a_client_that_says_close_is_told_so_and_closed(client, length):
    request = head(b"connection: close", start=b"GET /x HTTP/1.1")
    answer = answered(client, b"abc", length=length, request=request)
    assert (answer.headers["connection"], answer.body) == ("close", b"abc")
    assert client.transport.closed


@pytest.mark.parametrize(("length", "rest"), [(None, b"3\r\nabc\r\n"), (9, b"abc")])
def test_an_answer_that_is_cut_does_not_look_whole(client, length, rest):
    exchange = asked(client)
    exchange.start(200, b"OK", LINES, length, b"abc")
    exchange.cut()
    assert client.transport.written.endswith(b"\r\n\r\n" + rest)
    assert client.transport.closed


# -- the router's own ------------------------------------------------------------------------------


def test_a_page_has_the_id_of_its_request(client):
    echo(asked(client, head(b"x-request-id: r-1", start=b"GET /x HTTP/1.1")))
    (answer,) = client.got()
    assert answer.headers == {
        "server": "router", "content-type": "text/plain", "x-request-id": "r-1",
        "content-length": "3",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("answer", [echo, lambda exchange: exchange.refuse(BadRequest("no"))])
def test_the_answer_to_head_is_that_to_get_without_its_body(client, method, answer):
    answer(asked(client, head(start=method.encode() + b" /x HTTP/1.1")))
    echo(asked(client))
    first, second = client.got(method, "GET")
    assert int(first.headers["content-length"]) > 0
    assert bool(first.body) is (method == "GET")
    assert second.body == b"/x "


def test_a_refusal_keeps_the_connection(client):
    exchange = asked(client)
    exchange.rate_lines = b"x-ratelimit-limit-requests: 1\r\n"
    exchange.refuse(BadRequest("no"))
    (answer,) = client.got()
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert answer.headers["x-ratelimit-limit-requests"] == "1"
    assert client.is_open


# -- pace ------------------------------------------------------------------------------------------


class Flow:
    def __init__(self) -> None:
        self.did: list[str] = []

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")


def flowing(client: Client) -> Flow:
    """The flow of a request whose answer has not begun."""
    exchange = asked(client)
    exchange.flow = flow = Flow()
    return flow


def test_a_client_that_does_not_keep_up_holds_its_engine_back(client):
    flow = flowing(client)
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert flow.did == ["pause", "resume"]


def test_an_answer_that_has_ended_holds_nobody_back(client):
    flow = flowing(client)
    exchange = client.handler.requests[-1]
    exchange.start(200, b"OK", LINES, 0, b"")
    exchange.finish()
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert flow.did == []


def test_a_request_waits_until_the_answer_before_it_has_been_read(client):
    """A transport that is full already says so no second time: nobody would pause the next."""
    exchange = asked(client, GET * 2)
    exchange.flow = Flow()
    exchange.start(200, b"OK", LINES, None, b"abc")
    client.connection.pause_writing()
    exchange.finish()
    client.wait()
    assert len(client.handler.requests) == 1
    client.connection.resume_writing()
    client.wait()
    assert len(client.handler.requests) == 2


def test_an_answer_that_begins_after_the_client_fell_behind_holds_its_engine_back(client):
    """What was told while nobody could be paused is told when there is somebody."""
    exchange = asked(client)
    client.connection.pause_writing()
    exchange.flow = flow = Flow()
    exchange.start(200, b"OK", LINES, None, b"abc")
    assert flow.did == ["pause"]
    client.connection.resume_writing()
    assert flow.did == ["pause", "resume"]


def test_pausing_where_nothing_runs_does_no_harm(client):
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert client.connection.writing_paused is False


# -- work that has to wait -------------------------------------------------------------------------


@pytest.fixture
async def on_a_loop(client):
    client.downstream.loop = asyncio.get_running_loop()
    return client


async def test_what_waits_is_cancelled_when_its_client_leaves(on_a_loop):
    exchange = asked(on_a_loop)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    exchange.spawn(work())
    await begun.wait()
    on_a_loop.leave()
    await asyncio.wait_for(ended.wait(), 5)
    assert on_a_loop.transport.written == b""


async def raising() -> None:
    raise ValueError("a fault")


async def until_closed(client: Client) -> None:
    async with asyncio.timeout(5):
        while not client.transport.closed:
            await asyncio.sleep(0)


async def test_a_fault_in_what_waits_is_answered_with_500_and_gives_back_what_was_taken(on_a_loop):
    exchange = asked(on_a_loop)
    exchange.journey = journey = Journey()
    exchange.spawn(raising())
    await until_closed(on_a_loop)
    (answer,) = on_a_loop.got()
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert journey.told == 1


async def test_a_fault_in_what_waits_cuts_an_answer_that_has_begun(on_a_loop):
    exchange = asked(on_a_loop)
    exchange.start(200, b"OK", LINES, None, b"abc")
    exchange.spawn(raising())
    await until_closed(on_a_loop)
    assert on_a_loop.transport.written.endswith(b"3\r\nabc\r\n")
