"""A client's connection: one request after the other, and clients that leave."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref

import httptools
import pytest

from router.errors import BadRequest, InvalidApiKey
from router.proxy.connection import ClientConnection
from unit.proxy.client_fakes import (
    BODY_TO_COME,
    CHUNKED,
    GET,
    POST,
    Client,
    Journey,
    echo,
    get,
    head,
    later,
)

# -- one after the other ---------------------------------------------------------------------------


def test_a_connection_takes_one_request_after_the_other(client):
    for count in range(1, 4):
        assert len(client.ask(POST)) == count
    assert [answer.body for answer in client.got()] == [b"/x hello"] * 3
    assert client.is_open


def test_a_request_is_answered_in_the_call_that_brought_its_last_byte(client):
    client.send(POST[:-1])
    assert client.transport.written == b""
    client.send(POST[-1:])
    assert [answer.status for answer in client.got()] == [200]


def test_several_requests_of_one_read_are_answered_in_order(client):
    answers = client.ask(get("/1") + POST + get("/2") + CHUNKED + get("/3"))
    assert [a.body for a in answers] == [b"/1 ", b"/x hello", b"/2 ", b"/x hello", b"/3 "]


def test_requests_that_are_cut_at_every_byte_are_answered_as_in_one_read(client):
    sent = get("/1") + POST + CHUNKED + get("/2")
    answers = client.ask(*(sent[at : at + 1] for at in range(len(sent))))
    assert [a.body for a in answers] == [b"/1 ", b"/x hello", b"/x hello", b"/2 "]


@pytest.mark.parametrize("length", range(1, len(POST + CHUNKED)))
def test_requests_that_are_cut_anywhere_are_answered_as_in_one_read(client, length):
    sent = POST + CHUNKED
    assert [a.body for a in client.ask(sent[:length], sent[length:])] == [b"/x hello"] * 2


def test_the_next_request_waits_for_the_answer_to_the_present_one(waiting):
    waiting.send(get("/1") + get("/2"), get("/3"))
    for path in ("/1", "/2", "/3"):
        waiting.wait()
        assert waiting.handler.requests[-1].path == path
        echo(waiting.handler.requests[-1])
    assert [answer.body for answer in waiting.got()] == [b"/1 ", b"/2 ", b"/3 "]


@pytest.mark.parametrize("cut", [1, 20, len(get("/2")) - 1])
def test_what_comes_between_an_answer_and_the_next_turn_stays_in_order(waiting, cut):
    """The engine's and the client's socket may both be ready in one turn of the loop."""
    waiting.send(get("/1"), get("/2")[:cut])
    echo(waiting.handler.requests[0])
    waiting.send(get("/2")[cut:] + get("/3"))
    waiting.handler.reply = echo
    waiting.wait()
    assert [answer.body for answer in waiting.got()] == [b"/1 ", b"/2 ", b"/3 "]


def test_bytes_ahead_are_bounded_by_reading_no_more(waiting):
    waiting.send(GET)
    piece = GET * 100
    waiting.send(*[piece] * 100)
    assert not waiting.transport.reading
    assert len(waiting.connection._ahead) <= 64 * 1024 + len(piece)
    waiting.handler.reply = echo
    echo(waiting.handler.requests[0])
    waiting.wait()
    assert len(waiting.got()) == 10_001
    assert waiting.transport.reading


def test_nothing_new_is_taken_while_the_client_does_not_read_its_answers(client):
    client.connection.pause_writing()
    client.ask(GET * 1000)
    assert len(client.handler.requests) <= 1
    client.connection.resume_writing()
    assert len(client.ask()) == 1000


def test_five_thousand_requests_ahead_do_not_grow_the_stack(client):
    depths = []

    def reply(exchange) -> None:
        depths.append(len(inspect.stack(0)))
        echo(exchange)

    client.handler.reply = reply
    client.ask(GET * 5000)
    assert len(depths) == 5000
    assert max(depths) - min(depths) < 5


def test_requests_are_counted_while_they_are_answered(waiting):
    waiting.send(GET * 2)
    assert waiting.downstream.active == 1
    echo(waiting.handler.requests[0])
    assert waiting.downstream.active == 0
    waiting.wait()
    assert waiting.downstream.active == 1


async def test_drained_when_the_last_answer_is_given(waiting):
    await waiting.downstream.drained()
    waiting.send(GET)
    drained = waiting.downstream.drained()
    echo(waiting.handler.requests[0])
    await drained


async def still_drains(client: Client) -> bool:
    """Whether somebody is waited for; the sweep has looked."""
    drained = asyncio.ensure_future(client.downstream.drained())
    await asyncio.sleep(0)
    client.check(0)
    await asyncio.sleep(0)
    return drained.cancel()


async def test_a_drain_waits_for_the_body_of_a_head_that_was_taken(client):
    client.send(BODY_TO_COME, b"hello")
    assert await still_drains(client)
    client.ask(b"more")
    assert not await still_drains(client)


async def test_a_drain_waits_for_requests_that_wait_for_their_turn(waiting):
    waiting.send(GET * 2)
    echo(waiting.handler.requests[0])
    assert await still_drains(waiting)
    waiting.wait()
    echo(waiting.handler.requests[1])
    assert not await still_drains(waiting)


@pytest.mark.parametrize("sent", [b"", GET[:9], GET, BODY_TO_COME + b"x" * 10])
async def test_a_drain_waits_for_nobody_whose_head_was_not_taken_or_is_answered(client, sent):
    client.ask(sent)
    assert not await still_drains(client)


async def test_a_drain_ends_when_whom_it_waits_for_leaves(client):
    client.send(BODY_TO_COME)
    drained = asyncio.ensure_future(client.downstream.drained())
    await asyncio.sleep(0)
    client.leave()
    client.check(0)
    await drained


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_client_that_says_close_is_closed_after_its_answer(client, version):
    (answer,) = client.ask(head(b"connection: close", start=b"GET /x HTTP/" + version))
    assert answer.headers["connection"] == "close"
    assert client.transport.closed


def test_what_follows_a_request_that_closes_is_not_answered(client):
    client.ask(head(b"connection: close", start=b"GET /x HTTP/1.1"), GET)
    assert len(client.handler.requests) == 1


# -- how many --------------------------------------------------------------------------------------


def test_a_connection_too_many_is_told_so_at_once_and_is_not_asked():
    client = Client(max_connections=2)
    client.connect()
    assert client.transport.written == b""
    client.connect()
    (answer,) = client.got()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert client.lingers
    assert client.ask(GET) == [answer] == client.got()
    assert client.handler.heads == []


def test_a_connection_that_ends_makes_room_for_another():
    client = Client(max_connections=1)
    assert client.downstream.count == 1
    client.leave()
    assert client.downstream.count == 0
    client.connect()
    assert [answer.status for answer in client.ask(GET)] == [200]


def test_closing_the_front_closes_every_connection(client):
    first = client.transport
    client.connect()
    client.downstream.close()
    assert first.closed
    assert client.transport.closed


def test_whose_body_is_still_coming_when_the_front_closes_is_told_why(client):
    client.send(BODY_TO_COME, b"hello")
    client.downstream.close()
    (answer,) = client.got()
    assert (answer.status, b'"draining"' in answer.body) == (503, True)
    assert client.transport.closed


# -- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", GET[:9], BODY_TO_COME, BODY_TO_COME + b"hel", GET, b"nonsense\r\n\r\n"],
    ids=["new", "head", "body", "more-body", "answered", "refused"],
)  # fmt: skip
def test_a_client_may_leave_when_nothing_runs_for_it(client, sent):
    client.ask(sent)
    written = client.transport.written
    client.leave()
    client.wait()
    client.check(1e6)
    assert client.transport.written == written
    assert (client.downstream.count, client.downstream.active) == (0, 0)


def test_a_client_that_leaves_ends_the_journey_of_its_request_alone(waiting):
    waiting.send(GET * 3)
    waiting.handler.requests[0].journey = journey = Journey()
    waiting.leave()
    waiting.wait()
    assert journey.told == 1
    assert len(waiting.handler.requests) == 1
    assert waiting.downstream.active == 0


def test_an_answer_for_a_client_that_left_goes_nowhere(waiting):
    waiting.send(GET)
    waiting.leave()
    exchange = waiting.handler.requests[0]
    exchange.start(200, b"OK", b"", None, b"a")
    exchange.write(b"b")
    exchange.finish()
    assert waiting.transport.written == b""
    assert waiting.downstream.active == 0


def test_a_client_that_leaves_between_two_turns_is_asked_no_more(waiting):
    waiting.send(GET * 2, GET)
    echo(waiting.handler.requests[0])
    waiting.leave()
    waiting.wait()
    assert len(waiting.handler.requests) == 1


# -- who it is -------------------------------------------------------------------------------------


def test_the_peer_is_told_by_its_address():
    assert Client(peer="192.0.2.7").connection.peer == "192.0.2.7"


def test_behind_a_trusted_proxy_the_client_is_who_the_proxy_says():
    client = Client(peer="10.0.0.1", trusted_proxies=["10.0.0.0/8"])
    client.ask(head(b"x-forwarded-for: 192.0.2.7", start=b"GET /x HTTP/1.1"), GET)
    told, peer = client.handler.heads
    assert str(told.address) == "192.0.2.7"
    assert str(peer.address) == "10.0.0.1"
    assert told.client != peer.client == client.connection.peer_key


def test_its_repr_tells_what_it_does(waiting):
    connection: ClientConnection = waiting.connection
    assert repr(connection) == "<ClientConnection 10.0.0.1 idle>"
    waiting.send(GET)
    assert repr(connection) == "<ClientConnection 10.0.0.1 busy>"
    waiting.leave()
    assert repr(connection) == "<ClientConnection 10.0.0.1 closed>"


def test_a_refusal_is_told_in_the_form_of_the_path_that_was_asked(client):
    def refuse(exchange):
        exchange.rate_lines = b"x-ratelimit-limit-requests: 1\r\n"
        return BadRequest("no")

    client.handler.refusal = refuse
    (answer,) = client.ask(head(b"x-request-id: r-1", start=b"GET /x HTTP/1.1"))
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["x-ratelimit-limit-requests"] == "1"


# -- what was sent ahead ---------------------------------------------------------------------------


def test_a_request_that_waited_is_refused_where_its_key_has_gone_meanwhile():
    client = Client()
    client.handler.reply = later
    client.send(GET + GET + GET)
    client.handler.late_refusal = lambda _: InvalidApiKey("gone")
    client.handler.reply = echo
    echo(client.handler.requests[0])
    client.wait()
    assert [answer.status for answer in client.got()] == [200, 401, 401]


UPGRADE = head(b"connection: upgrade", b"upgrade: h2c", start=b"GET /x HTTP/1.1")


def test_very_many_upgrades_in_one_read_are_all_declined_and_answered(client):
    assert [answer.status for answer in client.ask(UPGRADE * 900)] == [200] * 900


def test_what_follows_an_upgrade_in_a_read_is_not_read_over_and_over(client, monkeypatch):
    fed = []

    class Parser(httptools.HttpRequestParser):
        def feed_data(self, data) -> None:
            fed.append(len(data))
            super().feed_data(data)

    monkeypatch.setattr(httptools, "HttpRequestParser", Parser)
    client.connect()
    client.ask(UPGRADE * 900)
    assert sum(fed) < 20 * 900 * len(UPGRADE)


def test_requests_of_all_kinds_in_one_large_read_are_answered_in_order(client):
    body = b"x" * 100_000
    large = head(b"content-length: %d" % len(body)) + body
    pieces = head(b"transfer-encoding: chunked") + b"4000\r\n%b\r\n0\r\n\r\n" % body[:0x4000]
    upgrade = head(b"connection: upgrade", b"upgrade: h2c", b"content-length: 20000") + body[:20000]
    answers = client.ask(GET * 300 + large + POST + pieces + upgrade + GET * 900 + large)
    sizes = [len(answer.body) - len("/x ") for answer in answers]
    assert sizes == [0] * 300 + [100_000, 5, 0x4000, 20_000] + [0] * 900 + [100_000]


def test_of_very_many_requests_in_one_read_few_are_kept_as_requests(waiting):
    waiting.send(get("/first") + GET * 9000)
    assert len(waiting.handler.heads) < 400


def test_a_refused_request_does_not_wait_for_the_garbage_collector(client):
    client.handler.refusal = lambda _: InvalidApiKey("no")
    gc.disable()
    try:
        client.ask(GET)
        exchange = weakref.ref(client.handler.heads.pop())
        assert exchange() is None
    finally:
        gc.enable()


def test_whose_client_leaves_is_told_also_of_requests_that_waited():
    client = Client()
    left = []
    client.downstream.left = left.append
    client.handler.reply = later
    client.send(GET + GET + GET[:9])
    client.send(GET[9:])
    client.leave()
    assert len(left) >= 2


def test_nobody_is_told_to_go_on_while_another_answer_is_due():
    client = Client()
    client.handler.reply = later
    client.send(GET + head(b"content-length: 2", b"expect: 100-continue"))
    assert b"100 Continue" not in client.transport.written


def test_who_asked_whether_to_go_on_behind_another_request_is_told_after_its_answer():
    """It came in one read with the request before it, and sends nothing until it is told."""
    client = Client()
    client.handler.reply = later
    client.send(GET + head(b"content-length: 2", b"expect: 100-continue"))
    echo(client.handler.requests[0])
    first, told = client.transport.written.split(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert told == b""


def test_who_has_sent_some_of_its_body_is_not_asked_for_it():
    client = Client()
    client.handler.reply = later
    client.send(GET + head(b"content-length: 2", b"expect: 100-continue") + b"h")
    echo(client.handler.requests[0])
    assert b"100 Continue" not in client.transport.written


def test_nothing_is_owed_after_an_answer_that_closes():
    """What stands behind it in the same read is not answered: no drain waits for it."""
    client = Client()
    client.send(head(b"connection: close", start=b"GET /c HTTP/1.1") + GET)
    client.wait()
    assert client.transport.closed
    assert not client.connection.owes
