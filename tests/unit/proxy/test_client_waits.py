"""What a client may take its time for, and how long."""

from __future__ import annotations

import pytest

from unit.proxy.client_fakes import (
    BODY_TO_COME,
    GET,
    echo,
    head,
)


@pytest.mark.parametrize(
    ("sent", "limit_s", "what"),
    [(b"", 10, b"head"), (GET[:9], 10, b"head"), (BODY_TO_COME, 60, b"body"),
     (BODY_TO_COME + b"hel", 60, b"body")],
)  # fmt: skip
def test_a_request_that_does_not_come_in_time_is_answered_with_408(client, sent, limit_s, what):
    client.send(sent)
    client.check(limit_s - 1)
    assert client.transport.written == b""
    client.check(limit_s + 1)
    (answer,) = client.got()
    assert answer.status == 408
    assert what in answer.body
    assert client.lingers


def test_a_head_that_comes_in_drops_has_no_more_time_than_one_that_does_not(client):
    due = client.connection._due
    client.send(*(GET[at : at + 1] for at in range(20)))
    assert client.connection._due == due


def test_a_second_head_has_its_own_time_from_its_first_byte(client):
    client.ask(GET)
    client.check(0)
    client.send(GET[:1])
    client.check(9)
    client.send(GET[1:2])
    assert len(client.got()) == 1
    client.check(11)
    assert [answer.status for answer in client.got()] == [200, 408]


def test_a_connection_that_nobody_uses_is_closed_without_a_word(client):
    client.ask(GET)
    client.check(0)
    client.check(74)
    assert client.is_open
    client.check(76)
    assert client.transport.aborted
    assert len(client.got()) == 1


def test_a_connection_that_is_used_again_is_given_its_time_anew(client):
    client.ask(GET)
    client.check(0)
    client.ask(GET)
    client.check(76)
    client.check(76 + 74)
    assert client.is_open


def test_a_refused_client_that_does_not_close_is_closed(client):
    client.ask(b"nonsense\r\n\r\n")
    client.check(1)
    assert not client.transport.aborted
    client.check(3)
    assert client.transport.aborted


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", head(b"transfer-encoding: gzip")])
def test_a_client_that_is_refused_after_an_answer_lingers_no_longer_than_another(client, sent):
    client.ask(GET)
    client.send(sent)
    assert client.lingers
    client.check(3)
    assert client.transport.aborted


def test_a_request_that_is_being_answered_is_not_the_connections_to_end(waiting):
    waiting.send(GET)
    waiting.check(1e6)
    assert waiting.is_open


def test_an_answer_that_closes_has_time_to_arrive(waiting):
    """The transport may still hold megabytes of it."""
    waiting.send(head(b"connection: close", start=b"GET /x HTTP/1.1"))
    echo(waiting.handler.requests[0])
    waiting.check(61)
    waiting.check(61 + 9)
    assert not waiting.transport.aborted
    waiting.check(10_000)
    waiting.check(20_000)
    waiting.check(30_000)
    assert waiting.transport.aborted


def test_a_client_that_does_not_read_what_it_was_answered_is_closed(waiting):
    waiting.send(GET * 2)
    waiting.connection.pause_writing()
    echo(waiting.handler.requests[0])
    waiting.wait()
    waiting.check(0)
    waiting.check(74)
    assert waiting.is_open
    waiting.check(76)
    assert waiting.transport.aborted
    assert len(waiting.handler.requests) == 1
