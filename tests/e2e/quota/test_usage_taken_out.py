"""What the router asks of a stream for its books, the client never sees: compared byte for byte.

The engine here writes a stream as vLLM does, from the `stream_options` it is sent. What the client
gets must be what the same engine would have written for the client's own options.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from e2e.quota.engine_script import compact_event, usage
from e2e.quota.organization import CHAT, ask, organization, used
from support.daemon import Daemon, service
from support.http import chat
from support.upstream import Pause, ScriptedUpstream, Send, Step
from support.wire import DONE, LAST_CHUNK, Request, chunk, stream_head

COMPLETIONS = "/v1/completions"
PROMPT_TOKENS = 11
WORDS = ("Hé", "llo ", '"usage":{', "\n\n", "end")
FINGERPRINT = {"system_fingerprint": "vllm-0.32.0-e1e46dda"}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "null": {"stream_options": None},
    "empty": {"stream_options": {}},
    "usage_false": {"stream_options": {"include_usage": False}},
    "continuous_alone": {"stream_options": {"continuous_usage_stats": True}},
    "usage": {"stream_options": {"include_usage": True}},
    "usage_continuous": {
        "stream_options": {"include_usage": True, "continuous_usage_stats": True}
    },
    "other_keys": {"stream_options": {"include_obfuscation": False, "x": [1]}},
}  # fmt: skip
Cut = Callable[[list[bytes]], Iterator[Step]]


def written(path: str, body: dict[str, Any], *, fingerprint: bool = False) -> list[bytes]:
    """The events of an engine's stream for a body, an element each."""
    options = body.get("stream_options") or {}
    tells_last = bool(options.get("include_usage"))
    tells_each = tells_last and bool(options.get("continuous_usage_stats"))
    choices = body.get("n") or 1
    mark = FINGERPRINT if fingerprint else {}
    events = []
    for number, word in enumerate(WORDS, 1):
        for index in range(choices):
            is_last = number == len(WORDS) and index == choices - 1
            said = {"delta": {"content": word}} if path == CHAT else {"text": word}
            finish = "length" if number == len(WORDS) else None
            content: dict[str, Any] = {"id": "c-1", "object": "chunk", "created": 1}
            content["choices"] = [{"index": index, **said, "finish_reason": finish}]
            if tells_each:
                content["usage"] = usage(PROMPT_TOKENS, number)
            if number == 1:
                content["prompt_token_ids"] = None
            events.append(compact_event(content | (mark if is_last and not tells_last else {})))
    if tells_last:
        total = usage(PROMPT_TOKENS, len(WORDS) * choices)
        details = {"prompt_tokens_details": {"cached_tokens": 0}}
        events.append(compact_event({"id": "c-1", "choices": [], "usage": total | details} | mark))
    return [*events, DONE]


def an_event_a_chunk(events: list[bytes]) -> Iterator[Step]:
    yield from (Send(chunk(event)) for event in events)


def all_at_once(events: list[bytes]) -> Iterator[Step]:
    yield Send(b"".join(chunk(event) for event in events))


def one_chunk(events: list[bytes]) -> Iterator[Step]:
    yield Send(chunk(b"".join(events)))


def a_byte_a_chunk(events: list[bytes]) -> Iterator[Step]:
    for byte in b"".join(events):
        yield Send(chunk(bytes([byte])))
        yield Pause(0)


def first_byte_alone(events: list[bytes]) -> Iterator[Step]:
    for event in events:
        yield Send(chunk(event[:1]))
        yield Pause(0.003)
        yield Send(chunk(event[1:]))
        yield Pause(0.003)


def cut_at_random(seed: int) -> Cut:
    """Cut in some twenty places, most of them near an event's end, and paused at each."""

    def cut(events: list[bytes]) -> Iterator[Step]:
        dice = random.Random(seed)
        data = b"".join(events)
        ends = [at for at in range(len(data)) if data.startswith(b"\n\n", at)]
        near = [dice.choice(ends) + dice.randint(-2, 3) for _ in range(10)]
        places = {*near, *(dice.randrange(len(data)) for _ in range(10)), 0, len(data)}
        cuts = sorted(at for at in places if 0 <= at <= len(data))
        for start, end in pairwise(cuts):
            yield Send(chunk(data[start:end]))
            yield Pause(0.002)

    return cut


CUTS: dict[str, Cut] = {
    "event": an_event_a_chunk,
    "merged": all_at_once,
    "one_chunk": one_chunk,
    "byte": a_byte_a_chunk,
    "first_byte": first_byte_alone,
    **{f"random{seed}": cut_at_random(seed) for seed in range(3)},
}


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    rows = [service("engine", upstream.url, "tiny")]
    return start_module_daemon(
        {"organizations": [organization(daily_tokens=10_000_000)], "services": rows}
    )


def answering(cut: Cut, *, fingerprint: bool = False) -> Callable[[Request], list[Step]]:
    def script(request: Request) -> list[Step]:
        events = written(request.path, request.json, fingerprint=fingerprint)
        return [Send(stream_head()), *cut(events), Send(LAST_CHUNK)]

    return script


def body_for(path: str, options: str, n: int = 1) -> dict[str, Any]:
    body = chat("tiny", stream=True, **OPTIONS[options])
    if path == COMPLETIONS:
        body = {"model": "tiny", "prompt": "hi", "stream": True, **OPTIONS[options]}
    return body if n == 1 else {**body, "n": n}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_the_client_gets_the_bytes_of_its_own_options_and_the_ledger_the_usage(
    router, upstream, path, options, cut
):
    upstream.forget()
    upstream.script = answering(CUTS[cut])
    before = used(router)
    body = body_for(path, options)
    answered = ask(router, body, path).read()
    assert answered.body == b"".join(written(path, body))
    assert answered.whole
    assert used(router) - before == PROMPT_TOKENS + len(WORDS)
    [request] = upstream.requests
    asked = {"include_usage": True, "continuous_usage_stats": True}
    own = body.get("stream_options") or {}
    assert request.json == {**body, "stream_options": {**own, **asked}}


@pytest.mark.parametrize("options", ["nothing", "usage"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_several_choices_are_charged_together(router, upstream, path, options):
    upstream.script = answering(all_at_once)
    before = used(router)
    body = body_for(path, options, n=3)
    assert ask(router, body, path).body == b"".join(written(path, body))
    assert used(router) - before == PROMPT_TOKENS + 3 * len(WORDS)


@pytest.mark.parametrize("options", ["usage", "usage_continuous"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_client_that_asks_for_usage_gets_the_fingerprint_with_it(router, upstream, path, options):
    """vLLM puts it on the stream's last event, which is that of the usage where it tells one.

    Where the router alone asked, that event goes, and its fingerprint with it: the event before has
    left long since, and holding it back would break the promise that an event leaves at once.
    """
    upstream.script = answering(an_event_a_chunk, fingerprint=True)
    body = body_for(path, options)
    expected = b"".join(written(path, body, fingerprint=True))
    assert ask(router, body, path).body == expected


def test_an_organization_without_a_token_quota_is_not_asked_for_usage_on_each_event(
    start_metered,
):
    router, upstream = start_metered(answering(an_event_a_chunk), daily_requests=1000)
    body = body_for(CHAT, "nothing")
    assert ask(router, body).body == b"".join(written(CHAT, body))
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
    assert used(router) == PROMPT_TOKENS + len(WORDS)


def of_known_length(request: Request) -> list[Step]:
    """A stream that is not chunked."""
    body = b"".join(written(request.path, request.json))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    return [Send(head % len(body) + body)]


@pytest.mark.parametrize("options", ["nothing", "usage", "usage_continuous"])
def test_a_stream_whose_length_is_known_is_whole_after_usage_was_taken_out(
    router, upstream, options
):
    upstream.script = of_known_length
    body = body_for(CHAT, options)
    answered = ask(router, body).read()
    assert answered.whole
    assert answered.body == b"".join(written(CHAT, body))
