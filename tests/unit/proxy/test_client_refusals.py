"""Requests that are refused, and faults of the router: one answer, and a connection in order."""

from __future__ import annotations

import pytest

from router.errors import MissingApiKey
from unit.proxy.client_fakes import (
    GET,
    POST,
    Answering,
    Client,
    Journey,
    echo,
    get,
    head,
    later,
)


def refusing(path: str = "/bad") -> Client:
    """A client who may not ask for `path`."""
    handler = Answering()
    handler.refusal = lambda exchange: MissingApiKey("no key") if exchange.path == path else None
    return Client(handler)


# -- refusals at the head --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(b"content-length: 9", start=b"POST /bad HTTP/1.1"), 401),
        (head(b"transfer-encoding: chunked", start=b"POST /bad HTTP/1.1"), 401),
        (head(b"content-length: 1048577"), 413),
        (head(b"transfer-encoding: chunked") + b"100001\r\n" + b"x" * 1048577, 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_a_refusal_before_the_body_closes_the_sending_side_alone(sent, status):
    """A reset, on what the client still sends, would take the answer with it."""
    client = Client(refusing().handler, max_body_mb=1)
    (answer,) = client.ask(sent)
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert client.lingers
    client.ask(b"x" * 100_000, GET)
    assert len(client.got()) == 1
    assert client.handler.requests == []


def test_a_refused_body_is_not_kept():
    client = Client(max_body_mb=1)
    client.send(head(b"transfer-encoding: chunked"), b"100000\r\n" + b"x" * 1048576 + b"\r\n")
    client.send(b"1\r\nx\r\n")
    (exchange,) = client.handler.heads
    assert exchange.body == b""


def test_a_refusal_with_the_whole_body_in_the_same_read_keeps_the_connection():
    client = refusing()
    answers = client.ask(head(b"content-length: 5", start=b"POST /bad HTTP/1.1") + b"hello" + GET)
    assert [answer.status for answer in answers] == [401, 200]
    assert "connection" not in answers[0].headers
    assert client.is_open


def test_a_refused_request_without_a_body_keeps_the_connection():
    client = refusing()
    assert [answer.status for answer in client.ask(get("/bad"), GET)] == [401, 200]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(head(b"content-length: 9", start=b"POST /bad HTTP/1.1"), id="401"),
        pytest.param(head(b"content-length: 1048577"), id="413"),
        pytest.param(b"nonsense\r\n\r\n", id="400"),
        pytest.param(head(start=b"CONNECT h:1 HTTP/1.1"), id="connect"),
    ],
)
@pytest.mark.parametrize("reads", [1, 2])
def test_what_came_before_a_refused_request_is_answered_before_it(last, reads):
    client = Client(refusing().handler, max_body_mb=1)
    sent = [GET * 2 + last] if reads == 1 else [GET * 2, last]
    assert [answer.status for answer in client.ask(*sent)][:2] == [200, 200]
    assert len(client.got()) == 3
    assert client.lingers


def test_a_request_that_closes_is_answered_whatever_follows_it(client):
    (answer,) = client.ask(head(b"connection: close", start=b"GET /x HTTP/1.1") + GET)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert not client.is_open


def test_a_refusal_waits_for_the_answers_before_it(client):
    client.handler.reply = later
    client.send(GET * 2 + b"nonsense\r\n\r\n", GET)
    for count in (1, 2):
        client.wait()
        assert len(client.handler.requests) == count
        echo(client.handler.requests[-1])
    client.wait()
    assert [answer.status for answer in client.got()] == [200, 200, 400]
    assert client.lingers


def test_a_refusal_behind_a_request_that_closes_is_not_sent(client):
    client.handler.reply = later
    client.send(GET + head(b"connection: close", start=b"GET /x HTTP/1.1") + b"nonsense\r\n\r\n")
    client.wait()
    for _ in range(2):
        echo(client.handler.requests[-1])
        client.wait()
    assert [answer.status for answer in client.got()] == [200, 200]
    assert client.transport.closed


def test_a_client_that_was_refused_and_left_is_not_written_to():
    client = refusing()
    client.transport.close()
    client.connection.data_received(b"nonsense\r\n\r\n")
    assert client.transport.written == b""


# -- faults ----------------------------------------------------------------------------------------


def raising(_exchange) -> None:
    raise ValueError("a fault")


def test_a_handler_that_fails_is_answered_with_500_once_and_closes(client):
    client.handler.reply = raising
    (answer,) = client.ask(GET * 2)
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert b"a fault" not in answer.body
    assert client.transport.closed
    assert client.downstream.active == 0


def test_a_handler_that_fails_at_the_head_is_answered_with_500_once_and_lingers(client):
    client.handler.refusal = lambda _: ValueError("a fault")
    (answer,) = client.ask(POST)
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert client.lingers
    assert client.handler.requests == []


def test_a_handler_that_fails_after_its_answer_began_is_cut_short(client):
    def begins_and_fails(exchange) -> None:
        exchange.start(200, b"OK", b"", 9, b"abc")
        raise ValueError("a fault")

    client.handler.reply = begins_and_fails
    client.send(GET)
    assert client.transport.written.endswith(b"\r\n\r\nabc")
    assert client.transport.closed


def test_a_fault_gives_back_what_the_journey_took(client):
    journey = Journey()

    def fails_on_its_way(exchange) -> None:
        exchange.journey = journey
        raise ValueError("a fault")

    client.handler.reply = fails_on_its_way
    client.ask(GET)
    assert journey.told == 1
