"""Near the end of a quota: what is asked, and how the answer is kept within what is left."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.quota.engine_script import COUNT, FRAME, compact_answer, engine, generated, usage
from e2e.quota.organization import CHAT, ask, organization, until_settled, used
from support.daemon import service
from support.http import call, chat
from support.upstream import Pause, Send
from support.wire import answer

COMPLETIONS, RESPONSES, MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
AUDIO = "/v1/audio/transcriptions"
LONG = "word " * 60
LONG_CHAT = [{"role": "user", "content": LONG}]
HELLO = [{"role": "user", "content": "hello"}]


def long_body(path: str, **more: object) -> dict[str, object]:
    prompt = {"prompt": LONG} if path == COMPLETIONS else {"messages": LONG_CHAT}
    return {"model": "tiny", **prompt, **more}


@pytest.mark.parametrize(
    ("path", "more", "field", "tokens"),
    [
        (CHAT, {"max_tokens": 400}, "max_tokens", 150),
        (CHAT, {"max_completion_tokens": 400}, "max_completion_tokens", 150),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": 400}, "max_completion_tokens", 150),
        (CHAT, {}, "max_tokens", 150),
        (CHAT, {"max_tokens": None}, "max_tokens", 150),
        (CHAT, {"max_tokens": 400, "n": 2}, "max_tokens", 75),
        (CHAT, {"max_tokens": 400, "n": 3, "temperature": 0.5}, "max_tokens", 50),
        (COMPLETIONS, {"max_tokens": 400}, "max_tokens", 150),
        (COMPLETIONS, {"max_tokens": 400, "n": 2, "best_of": 4}, "max_tokens", 37),
    ],
)
def test_the_limit_on_an_answer_is_lowered_to_what_is_left_and_nothing_else_is_changed(
    start_metered, path, more, field, tokens
):
    router, upstream = start_metered(engine(50), daily_tokens=200)
    sent = long_body(path, **more)
    assert ask(router, sent, path).status == 200
    count, request = upstream.requests
    assert (count.path, request.path) == (COUNT, path)
    assert request.json == {**sent, field: tokens}
    assert used(router) == 50 + tokens * int(more.get("n", 1)) <= 200


def test_completions_that_name_no_limit_get_one_when_vllms_default_no_longer_fits(start_metered):
    router, upstream = start_metered(engine(190), daily_tokens=200)
    assert ask(router, long_body(COMPLETIONS), COMPLETIONS).status == 200
    assert upstream.requests[-1].json == long_body(COMPLETIONS, max_tokens=10)
    assert used(router) == 200


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (RESPONSES, "max_output_tokens", {"input": "hello", "max_output_tokens": 500}),
        (RESPONSES, "max_output_tokens", {"input": "hello"}),
        (MESSAGES, "max_tokens", {"messages": HELLO, "max_tokens": 500}),
    ],
)
def test_a_prompt_that_tokenize_cannot_count_is_held_for_its_bytes(
    start_metered, path, field, body
):
    sent = {"model": "tiny", **body}
    router, upstream = start_metered(engine(50), daily_tokens=len(json.dumps(sent)) + FRAME + 33)
    assert ask(router, sent, path).status == 200
    [request] = upstream.requests
    assert request.json == {**sent, field: 33}
    assert used(router) == 50 + 33


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_while_the_safe_bound_fits_nobody_is_asked_and_the_body_goes_on_byte_for_byte(
    start_metered, path
):
    router, upstream = start_metered(engine(50), daily_tokens=2000)
    sent = json.dumps(long_body(path, max_tokens=20), indent=1).encode()
    assert ask(router, sent, path).status == 200
    assert [request.body for request in upstream.requests] == [sent]


def test_a_prompt_that_was_counted_and_fits_is_sent_as_it_was(start_metered):
    router, upstream = start_metered(engine(50), daily_tokens=200)
    sent = json.dumps(long_body(CHAT, max_tokens=20)).encode()
    assert ask(router, sent).status == 200
    count, request = upstream.requests
    assert (count.path, count.body, request.body) == (COUNT, sent, sent)


def test_the_quota_is_used_to_its_last_token_and_then_refused(start_metered):
    router, upstream = start_metered(engine(20), daily_tokens=300)
    statuses = [ask(router, chat("tiny", max_tokens=60)).status for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 429, 429]
    assert used(router) == 300
    assert upstream.requests[-1].path == CHAT  # of what is used up nothing is counted


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_prompt_alone_past_the_quota_is_refused_before_it_is_sent(start_metered, path):
    router, upstream = start_metered(engine(200), daily_tokens=200)
    refused = ask(router, long_body(path, max_tokens=1), path)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert [request.path for request in upstream.requests] == [COUNT]
    until_settled(router)
    assert used(router) == 0


@pytest.mark.parametrize("status", [404, 500])
def test_where_no_engine_counts_the_bound_decides(start_metered, status):
    def script(request):
        if request.path == COUNT:
            return [Send(answer({"error": "no"}, status))]
        return [Send(generated(request, 10, 5))]

    router, upstream = start_metered(script, daily_tokens=400)
    assert ask(router, long_body(CHAT)).status == 429
    assert ask(router, chat("tiny", max_tokens=300)).status == 200
    assert upstream.requests[-1].json["max_tokens"] < 100
    until_settled(router)


def test_who_fits_by_the_engines_count_waits_for_a_busy_engine_and_is_not_refused(
    start_daemon, start_upstream
):
    """Four at once, one slot: the count of one must not find the slot taken by another's."""

    def script(request):
        pause = [] if request.path == COUNT else [Pause(0.2)]
        return [*pause, *engine(20)(request)]

    upstream = start_upstream(script)
    rows = [service("engine", upstream.url, "tiny", max_concurrency=1)]
    router = start_daemon({"organizations": [organization(daily_tokens=300)], "services": rows})
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: ask(router, chat("tiny", max_tokens=50)), range(4))
        assert [answer.status for answer in answers] == [200] * 4
    until_settled(router)
    assert used(router) == 280


def test_what_the_engine_counts_is_the_prompt_it_would_answer(start_metered):
    """vLLM's /tokenize counts `messages` where there are any: completions read `prompt` alone."""

    def count(body):
        return 20 if "messages" in body else 243

    router, upstream = start_metered(engine(243, count=count), daily_tokens=100)
    body = long_body(COMPLETIONS, messages=HELLO, max_tokens=1)
    assert ask(router, body, COMPLETIONS).status == 429
    assert [request.path for request in upstream.requests] == [COUNT]


def form(size: int) -> tuple[bytes, tuple[str, str]]:
    """A transcription's form with so many bytes of sound."""
    parts = (
        b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\ntiny\r\n'
        b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n'
        b"--B--\r\n"
    )
    return parts % (b"\x01" * size), ("content-type", "multipart/form-data; boundary=B")


def test_an_answer_that_cannot_be_limited_is_refused_where_it_might_not_fit(start_metered):
    def script(request):
        return [Send(compact_answer({"text": "hi", "usage": usage(400, 300)}))]

    router, upstream = start_metered(script, daily_tokens=600)
    body, kind = form(1000)
    assert ask(router, body, AUDIO, kind).status == 429
    assert upstream.requests == []
    assert used(router) == 0


def test_a_request_that_is_refused_after_its_reservation_gives_it_back(start_metered):
    """A key that comes twice is seen only when a change is put into the body."""
    router, upstream = start_metered(engine(10), daily_tokens=5000)
    body = (
        b'{"model": "tiny", "stream": true, "top_k": 1, "top_k": 2,'
        b' "messages": [{"role": "user", "content": "hi"}]}'
    )
    assert ask(router, body).status == 400
    assert upstream.requests == []
    until_settled(router, timeout=3)


def test_an_anonymous_router_limits_nobody(start_daemon, start_upstream):
    upstream = start_upstream(engine(10))
    row = {"name": "engine", "url": upstream.url, "models": ["tiny"]}
    router = start_daemon({"services": [row]})
    answered = call(router.port, "POST", CHAT, chat("tiny"))
    assert answered.status == 200
    assert not [name for name, _ in answered.headers if name.startswith("x-ratelimit")]
    assert upstream.requests[0].json == chat("tiny")
