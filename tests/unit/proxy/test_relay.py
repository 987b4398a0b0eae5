"""One attempt's answer, held until its first byte, then passed on as it comes."""

from __future__ import annotations

import pytest

from router.proxy.answer import MalformedAnswer
from router.proxy.meter import Unmetered
from router.proxy.relay import Outcome
from unit.proxy.proxy_fakes import FakeConnection
from unit.proxy.relay_fakes import BROKE, EVENT, EVENTS, JSON, Attempt


@pytest.fixture
async def attempt():
    return Attempt()


# -- passing on ------------------------------------------------------------------------------------


async def test_the_request_is_sent_whole(attempt):
    assert attempt.connection.sent == [b'HEAD {"model":"m"}']
    assert attempt.exchange.flow is attempt.relay


async def test_the_head_is_held_until_the_first_byte(attempt):
    attempt.head()
    assert not attempt.exchange.begun
    attempt.relay.on_data(b"x")
    assert attempt.exchange.begun
    assert attempt.exchange.pieces == [b"x"]


async def test_each_read_is_one_write(attempt):
    attempt.streams(b"a", b"b", b"c")
    assert attempt.exchange.pieces == [b"a", b"b", b"c"]


async def test_a_whole_answer_is_finished_once(attempt):
    attempt.head(length=2)
    attempt.relay.on_data(b"{}")
    attempt.relay.on_end()
    assert attempt.outcome is Outcome.WHOLE
    assert attempt.exchange.ends == ["finish"]
    assert attempt.ended == [attempt.relay]
    assert attempt.exchange.flow is None


async def test_an_answer_without_a_body_begins_at_its_end(attempt):
    attempt.head(204, length=0)
    assert not attempt.exchange.begun
    attempt.relay.on_end()
    assert (attempt.exchange.status, attempt.exchange.body, attempt.exchange.length) == (
        204, b"", 0,
    )  # fmt: skip
    assert attempt.outcome is Outcome.WHOLE


class Watched(Unmetered):
    """A meter that remembers what it was told of."""

    def __init__(self):
        self.told = []

    def progress(self, tap):
        self.told.append(tap)


@pytest.fixture
async def watched():
    attempt = Attempt()
    attempt.call.meter = Watched()
    return attempt


async def test_an_answer_that_is_awaited_is_alive(watched):
    """Also before its head, and after a head that an engine sends for what it has only queued."""
    watched.relay.note_progress()
    watched.head()
    watched.relay.note_progress()
    assert watched.call.meter.told == [None, None]


async def test_what_has_been_answered_is_progress(watched):
    watched.streams(EVENT)
    watched.relay.note_progress()
    assert watched.call.meter.told == [watched.relay.tap]


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 422, 429])
async def test_any_status_below_500_is_passed_on_as_it_is(attempt, status):
    attempt.head(status, length=2)
    attempt.relay.on_data(b"{}")
    assert (attempt.exchange.status, attempt.exchange.reason) == (status, b"Reason")
    assert attempt.exchange.length == 2


async def test_the_routers_own_headers_are_added_to_the_engines(attempt):
    attempt.head(lines=JSON + b"x-engine: 2\r\n")
    attempt.relay.on_data(b"x")
    lines = attempt.exchange.lines.decode().split("\r\n")
    assert lines[:2] == ["content-type: application/json", "x-engine: 2"]
    assert "x-request-id: req-1" in lines
    assert "x-router-service: a" in lines
    assert lines[-2].startswith("server-timing: queue;dur=0.00, connect;dur=0.00, ttft;dur=")
    assert lines[-1] == ""


async def test_the_usage_of_what_passed_is_known(attempt):
    attempt.head()
    attempt.relay.on_data(b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    assert attempt.relay.tap.usage.total == 7


# -- 5xx -------------------------------------------------------------------------------------------


async def test_a_5xx_is_kept_back_while_another_service_may_be_tried(attempt):
    attempt.head(500, length=4)
    attempt.relay.on_data(b"oo")
    attempt.relay.on_data(b"ps")
    attempt.relay.on_end()
    assert not attempt.exchange.begun
    assert attempt.outcome is Outcome.FAILED


async def test_a_kept_back_answer_is_passed_on_as_it_was(attempt):
    attempt.head(503, JSON + b"retry-after: 7\r\n")
    attempt.relay.on_data(b"oo")
    attempt.relay.on_data(b"ps")
    attempt.relay.on_end()
    attempt.relay.answer_held()
    assert (attempt.exchange.status, attempt.exchange.body, attempt.exchange.length) == (
        503, b"oops", 4,
    )  # fmt: skip
    assert attempt.exchange.lines.startswith(b"content-type: application/json\r\nretry-after: 7")
    assert attempt.exchange.ends == ["finish"]


async def test_a_5xx_is_passed_on_at_once_where_nothing_is_left_to_try():
    attempt = Attempt(may_move=False)
    attempt.head(500)
    attempt.relay.on_data(b"oops")
    assert attempt.exchange.status == 500


async def test_a_5xx_that_is_too_large_to_keep_is_given_up(attempt):
    attempt.head(500)
    attempt.relay.on_data(b"x" * (1024 * 1024 + 1))
    assert attempt.outcome is Outcome.FAILED
    assert attempt.relay.held is None
    assert attempt.connection.did == ["abort"]


async def test_a_kept_back_answer_that_breaks_is_no_answer(attempt):
    attempt.head(500)
    attempt.relay.on_data(b"oo")
    attempt.relay.on_broken(BROKE)
    assert attempt.outcome is Outcome.FAILED
    assert attempt.relay.held is None


# -- broken before the first byte ------------------------------------------------------------------


async def test_a_break_before_the_head_fails_and_writes_nothing(attempt):
    attempt.relay.on_broken(BROKE)
    assert attempt.outcome is Outcome.FAILED
    assert attempt.relay.reason == str(BROKE)
    assert attempt.relay.fault == "disconnect"
    assert not attempt.exchange.begun
    assert attempt.exchange.ends == []


async def test_a_break_between_head_and_body_fails_and_writes_nothing(attempt):
    attempt.head(lines=EVENTS)
    attempt.relay.on_broken(BROKE)
    assert attempt.outcome is Outcome.FAILED
    assert not attempt.exchange.begun


async def test_a_reused_connection_that_ends_before_a_byte_is_stale_and_can_be_tried_again():
    attempt = Attempt(reused=True)
    attempt.relay.on_broken(BROKE)
    assert attempt.outcome is Outcome.STALE
    attempt.relay.rearm()
    assert attempt.outcome is None
    fresh = FakeConnection()
    attempt.relay.send(fresh, b"HEAD ")
    attempt.head(length=1)
    attempt.relay.on_data(b"x")
    attempt.relay.on_end()
    assert attempt.outcome is Outcome.WHOLE


async def test_a_reused_connection_that_ends_after_the_head_is_a_failure():
    attempt = Attempt(reused=True)
    attempt.head()
    attempt.relay.on_broken(BROKE)
    assert attempt.outcome is Outcome.FAILED


async def test_garbage_on_a_reused_connection_is_a_failure_not_staleness():
    attempt = Attempt(reused=True)
    attempt.relay.on_broken(MalformedAnswer("Expected HTTP/"))
    assert attempt.outcome is Outcome.FAILED


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_head", [False, True])
async def test_no_first_byte_in_time_is_a_timeout_without_an_answer(attempt, with_head):
    if with_head:
        attempt.head(lines=EVENTS)
    attempt.check(299.9)
    assert attempt.outcome is None
    attempt.check(300.1)
    assert attempt.outcome is Outcome.TIMEOUT
    assert attempt.connection.did == ["abort"]
    assert not attempt.exchange.begun


@pytest.mark.parametrize(
    ("before_s", "fault"), [(0, "timeout"), (149, "timeout"), (151, None), (299, None)]
)
async def test_an_engine_is_blamed_for_a_timeout_where_it_had_most_of_the_time(
    attempt, before_s, fault
):
    """A slow upload, a wait in line or another engine before it are not its fault."""
    attempt.relay.sent = attempt.call.started + before_s
    attempt.check(300.1)
    assert (attempt.outcome, attempt.relay.fault) == (Outcome.TIMEOUT, fault)


async def test_the_time_to_the_first_byte_does_not_limit_a_stream(attempt):
    attempt.streams(EVENT)
    attempt.relay._latest = attempt.call.started + 10_000
    attempt.check(10_100)
    assert attempt.outcome is None


async def test_every_byte_starts_the_idle_time_anew(attempt):
    attempt.streams(EVENT)
    first = attempt.relay._latest
    attempt.relay.on_data(EVENT)
    attempt.relay.check(first + 120)
    assert attempt.outcome is None


async def test_a_client_that_does_not_read_for_the_idle_time_is_cut(attempt):
    attempt.streams(EVENT)
    attempt.relay.pause()
    attempt.relay.check(attempt.relay._latest + 121)
    assert attempt.outcome is Outcome.SLOW_CLIENT
    assert attempt.exchange.ends == ["cut"]
    assert attempt.connection.did == ["pause", "abort"]


async def test_a_client_that_reads_again_is_given_its_time_anew(attempt):
    attempt.streams(EVENT)
    attempt.relay.pause()
    attempt.relay._latest -= 119
    attempt.relay.resume()
    attempt.check(2)
    assert attempt.outcome is None


async def test_the_clients_pace_is_passed_to_the_engine(attempt):
    attempt.streams(EVENT)
    attempt.relay.pause()
    attempt.relay.resume()
    assert attempt.connection.did == ["pause", "resume"]
