"""An answer that breaks after its first byte, and every other end of an attempt."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from router.openai.stream_taps import UsageFilter
from router.proxy.relay import Outcome
from unit.proxy.relay_fakes import BROKE, EVENT, EVENTS, Attempt


@pytest.fixture
async def attempt():
    return Attempt()


# -- broken after the first byte -------------------------------------------------------------------

FORMS = {
    "/v1/chat/completions": b"data: ",
    "/v1/completions": b"data: ",
    "/v1/responses": b"event: error\ndata: ",
    "/v1/messages": b"event: error\ndata: ",
}


def error_of(body: bytes, form: bytes) -> dict:
    """The one event behind the first; nothing else may be there."""
    rest = body.removeprefix(EVENT)
    assert rest.startswith(b"\n\n" + form)
    assert rest.endswith(b"\n\n")
    assert rest.count(b"data: ") == 1
    return json.loads(rest[2 + len(form) :])


def code_of(error: dict) -> str:
    return error["code"] if "code" in error else error["error"]["code"]


def broken(attempt) -> None:
    attempt.relay.on_broken(BROKE)


def silent(attempt) -> None:
    attempt.relay.check(attempt.relay._latest + 121)


def shut_down(attempt) -> None:
    attempt.relay.shut_down()


BREAKS = {
    "upstream_disconnected": (broken, Outcome.UPSTREAM_BROKE),
    "upstream_timeout": (silent, Outcome.UPSTREAM_BROKE),
    "server_shutting_down": (shut_down, Outcome.SHUT_DOWN),
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("code", BREAKS)
async def test_a_stream_that_breaks_ends_with_one_error_event_in_the_paths_form(path, code):
    attempt = Attempt(path=path)
    attempt.streams(EVENT)
    cause, outcome = BREAKS[code]
    cause(attempt)
    assert code_of(error_of(attempt.exchange.body, FORMS[path])) == code
    assert attempt.exchange.ends == ["finish"]
    assert attempt.outcome is outcome


async def test_the_error_event_of_responses_has_the_number_that_comes_next():
    attempt = Attempt(path="/v1/responses")
    event = b'event: x\ndata: {"sequence_number":%d,"type":"x"}\n\n'
    attempt.streams(event % 0, event % 1, event % 41)
    broken(attempt)
    error = json.loads(attempt.exchange.body.rpartition(b"data: ")[2])
    assert error["sequence_number"] == 42


@pytest.mark.parametrize("code", BREAKS)
async def test_a_stream_that_breaks_never_says_that_it_is_whole(attempt, code):
    attempt.streams(EVENT)
    BREAKS[code][0](attempt)
    assert b"[DONE]" not in attempt.exchange.body
    assert b"finish_reason" not in attempt.exchange.body


@pytest.mark.parametrize("length", [100, None])
@pytest.mark.parametrize("code", BREAKS)
async def test_a_unary_answer_that_breaks_is_cut(attempt, code, length):
    attempt.head(length=length)
    attempt.relay.on_data(b"{")
    BREAKS[code][0](attempt)
    assert attempt.exchange.body == b"{"
    assert attempt.exchange.ends == ["cut"]


async def test_a_stream_of_a_told_length_that_breaks_is_cut(attempt):
    attempt.head(lines=EVENTS, length=1000)
    attempt.relay.on_data(EVENT)
    broken(attempt)
    assert (attempt.exchange.body, attempt.exchange.ends) == (EVENT, ["cut"])


async def test_a_stream_that_gets_shorter_on_its_way_has_no_length_and_ends_with_an_event(attempt):
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    attempt.call.meter = SimpleNamespace(tap=lambda _, *, streams: tap, rate_lines=lambda _now: b"")
    attempt.head(lines=EVENTS, length=1000)
    attempt.relay.on_data(EVENT)
    assert attempt.exchange.length is None
    attempt.relay.on_broken(BROKE)
    assert attempt.exchange.ends == ["finish"]
    assert b"upstream_disconnected" in attempt.exchange.body


@pytest.mark.parametrize("code", ["upstream_timeout", "server_shutting_down"])
async def test_what_the_router_ends_is_ended_at_the_engine_too(attempt, code):
    attempt.streams(EVENT)
    BREAKS[code][0](attempt)
    assert attempt.connection.did == ["abort"]


# -- ends ------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_the_engines_work(attempt):
    attempt.streams(EVENT)
    attempt.relay.abandon()
    assert attempt.connection.did == ["abort"]
    assert attempt.outcome is Outcome.CLIENT_GONE
    assert attempt.exchange.ends == []


async def test_a_shutdown_before_the_first_byte_writes_nothing(attempt):
    attempt.head()
    attempt.relay.shut_down()
    assert attempt.outcome is Outcome.SHUT_DOWN
    assert not attempt.exchange.begun
    assert attempt.exchange.ends == []


ENDS = {
    "whole": lambda a: a.relay.on_end(),
    "broken": broken,
    "silent": silent,
    "shut_down": shut_down,
    "abandoned": lambda a: a.relay.abandon(),
}
LATER = {name: ENDS[name] for name in ("silent", "shut_down", "abandoned")}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("end", ENDS)
async def test_an_attempt_ends_once_whatever_comes_after(attempt, end, later):
    attempt.streams(EVENT)
    ENDS[end](attempt)
    before = attempt.outcome, attempt.exchange.pieces[:], attempt.exchange.ends[:]
    LATER[later](attempt)
    assert (attempt.outcome, attempt.exchange.pieces, attempt.exchange.ends) == before
    assert attempt.connection.did.count("abort") <= 1


@pytest.mark.parametrize("end", ENDS)
async def test_any_end_is_told_once(attempt, end):
    attempt.streams(EVENT)
    ENDS[end](attempt)
    assert attempt.ended == [attempt.relay]
    assert attempt.outcome is not None


@pytest.mark.parametrize("end", ENDS)
async def test_after_any_end_the_client_can_no_longer_pause_the_engine(attempt, end):
    attempt.streams(EVENT)
    ENDS[end](attempt)
    did = attempt.connection.did[:]
    assert attempt.exchange.flow is None
    attempt.relay.pause()
    attempt.relay.resume()
    assert attempt.connection.did == did


async def test_abandoning_twice_is_abandoning_once(attempt):
    attempt.relay.abandon()
    attempt.relay.abandon()
    assert attempt.outcome is Outcome.CLIENT_GONE


async def test_its_repr_tells_how_far_it_is(attempt):
    attempt.streams(b"abc")
    assert repr(attempt.relay) == "<Relay a running 3 B>"
