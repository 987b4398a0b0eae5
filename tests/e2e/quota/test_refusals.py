"""A refusal says which limit it was, what is used, and when it ends; failures cost nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from e2e.quota.engine_script import engine, failing
from e2e.quota.organization import (
    BEARER,
    CHAT,
    ask,
    organization,
    until_settled,
    used,
    windows,
)
from support.daemon import service
from support.http import Client, call, chat, encode
from support.upstream import Gate, Send
from support.wire import chat_answer

DAY_S = 86_400
SLACK_S = 10
NAMES = ("limit", "remaining", "reset")


def end_of_day() -> float:
    return (time.time() // DAY_S + 1) * DAY_S


def end_of_month() -> float:
    now = datetime.now(UTC)
    years, month = divmod(now.month, 12)
    return datetime(now.year + years, month + 1, 1, tzinfo=UTC).timestamp()


def rate_headers(answered, kind: str) -> list[str | None]:
    return [answered.header(f"x-ratelimit-{name}-{kind}") for name in NAMES]


@pytest.mark.parametrize(
    ("limits", "what", "end"),
    [
        ({"daily_tokens": 100}, "100 tokens a day", end_of_day),
        ({"monthly_tokens": 100}, "100 tokens a month", end_of_month),
        ({"daily_tokens": 100, "monthly_tokens": 90}, "90 tokens a month", end_of_month),
        ({"daily_requests": 1}, "1 requests a day", end_of_day),
    ],
)
def test_a_refusal_names_the_limit_what_is_used_and_when_it_ends(start_metered, limits, what, end):
    router, _ = start_metered(engine(70, 10), **limits)
    assert ask(router, chat("tiny", max_tokens=10)).status == 200
    refused = ask(router, chat("tiny", max_tokens=10))
    error = refused.error
    assert refused.status == 429
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    when = datetime.fromtimestamp(end(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    used_up = "1 used" if "requests" in what else "80 used"
    assert all(part in error["message"] for part in (what, used_up, when, "acme")), error
    assert abs(int(refused.header("retry-after")) - (end() - time.time())) < SLACK_S


def test_every_answer_to_a_key_tells_what_is_left(start_metered):
    def script(request):
        return failing(400)(request) if "bad" in request.json else engine(20, 10)(request)

    router, _ = start_metered(script, daily_tokens=1000, monthly_tokens=5000, daily_requests=3)
    good = ask(router, chat("tiny", max_tokens=10))
    bad = ask(router, chat("tiny", bad=1, max_tokens=10))
    unknown = ask(router, chat("nobody"))
    no_json = ask(router, b"{")
    after = [ask(router, chat("tiny", max_tokens=10)) for _ in range(3)]
    answers = [good, bad, unknown, no_json, *after]
    assert [a.status for a in answers] == [200, 400, 404, 400, 200, 200, 429]
    for each in answers:
        requests, tokens = rate_headers(each, "requests"), rate_headers(each, "tokens")
        assert (requests[0], tokens[0]) == ("3", "1000")
        for reset in (requests[2], tokens[2]):
            assert abs(int(reset.removesuffix("s")) - (end_of_day() - time.time())) < SLACK_S
    assert rate_headers(after[2], "requests")[1] == "0"
    assert rate_headers(after[2], "tokens")[1] == "910"


LIMITS = {"daily_tokens": 1000, "monthly_tokens": 5000, "daily_requests": 3}
LARGE = b"x" * (1024 * 1024 + 1)
CHUNKED = encode(
    "POST", CHAT, None, (*BEARER, ("transfer-encoding", "chunked"))
) + b"%x\r\n%b\r\n" % (len(LARGE), LARGE)


@pytest.fixture
def start_narrow(start_daemon, start_upstream):
    """Start a router that takes one request from an address, and small bodies."""

    def start(script=None):
        upstream = start_upstream(script)
        return start_daemon({
            "organizations": [organization(**LIMITS)],
            "services": [service("engine", upstream.url, "tiny")],
            "limits": {"per_ip": {"requests_per_second": 0.001, "burst": 1}},
            "server": {"max_body_mb": 1, "drain_timeout_s": 20},
        })  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (encode("POST", CHAT, LARGE, BEARER), 413, "request_too_large"),
        (CHUNKED, 413, "request_too_large"),
        (encode("GET", CHAT, None, BEARER), 405, "method_not_allowed"),
    ],
    ids=["length", "chunked", "method"],
)
def test_a_key_that_is_refused_by_its_head_or_body_is_told_what_is_left(
    start_narrow, sent, status, code
):
    with Client(start_narrow().port) as client:
        client.send(sent)
        refused = client.response().read()
    assert (refused.status, refused.error["code"]) == (status, code)
    assert rate_headers(refused, "requests")[:2] == ["3", "3"]
    assert rate_headers(refused, "tokens")[:2] == ["1000", "1000"]


def test_a_key_whose_address_asks_too_often_is_told_what_is_left(start_narrow):
    router = start_narrow(engine(20, 10))
    assert ask(router, chat("tiny", max_tokens=10)).status == 200
    refused = ask(router, chat("tiny", max_tokens=10))
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert rate_headers(refused, "requests")[:2] == ["3", "2"]
    assert rate_headers(refused, "tokens")[:2] == ["1000", "970"]


def test_a_key_that_comes_while_the_router_drains_is_told_what_is_left(start_narrow):
    gate = Gate()
    router = start_narrow(lambda _: [gate, Send(chat_answer())])
    with Client(router.port) as client:
        client.send(encode("POST", CHAT, chat("tiny", max_tokens=10), BEARER))
        assert gate.reached.wait(10)
        router.drain()
        refused = ask(router, chat("tiny", max_tokens=10))
        assert (refused.status, refused.error["code"]) == (503, "draining")
        assert rate_headers(refused, "requests")[:2] == ["3", "2"]
        gate.open()
        assert client.response().read().status == 200
    assert router.wait() == 0


@pytest.mark.parametrize("key", ["sk-wrong", ""])
def test_who_shows_no_key_that_counts_is_told_of_no_quota(start_narrow, key):
    headers = (("authorization", f"Bearer {key}"),) if key else ()
    router = start_narrow()
    answers = [call(router.port, "POST", CHAT, chat(), headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [401, 429]
    for answer in answers:
        assert rate_headers(answer, "requests") == rate_headers(answer, "tokens") == [None] * 3


def test_the_tokens_headers_are_of_the_window_with_the_least_left(start_metered):
    router, _ = start_metered(engine(20, 10), daily_tokens=1000, monthly_tokens=900)
    ask(router, chat("tiny", max_tokens=10))
    until_settled(router)
    limit, remaining, reset = rate_headers(ask(router, chat("nobody")), "tokens")
    assert (limit, remaining) == ("900", "870")
    assert abs(int(reset.removesuffix("s")) - (end_of_month() - time.time())) < SLACK_S


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("how", [400, 404, 429, 500, 503, "no head", "head alone"])
def test_a_failure_before_the_first_byte_costs_nothing(start_metered, how, stream):
    router, upstream = start_metered(failing(how), daily_tokens=1000, daily_requests=5)
    answered = ask(router, chat("tiny", stream=stream))
    assert answered.status == (how if isinstance(how, int) else 502)
    assert len(upstream.requests) >= 1
    until_settled(router)
    assert {row["used"] for row in windows(router).values()} == {0}


def test_an_answer_that_breaks_after_its_first_byte_costs_what_came(start_metered):
    router, _ = start_metered(failing("short"), daily_tokens=1000)
    answered = ask(router, chat("tiny"))
    assert (answered.status, answered.whole) == (200, False)
    until_settled(router)
    assert 0 < used(router) <= 1000
