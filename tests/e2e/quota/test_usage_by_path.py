"""Every path is charged what its answer tells, and an engine that tells nothing by its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from e2e.quota.engine_script import compact, compact_answer, stream_of, usage
from e2e.quota.organization import (
    BEARER,
    CHAT,
    ask,
    log_lines,
    organization,
    until_settled,
    used,
    windows,
)
from support.daemon import Daemon, Engine, service
from support.http import Client, chat
from support.recordings import FOLDER, load
from support.upstream import ScriptedUpstream, Send, Stall
from support.wire import DONE, answer, chunk, stream_head

MULTIPART = ("content-type", "multipart/form-data; boundary=B")
FORM = (
    b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--B--\r\n'
) % (b"\x01" * 40_000)
TOLD = usage(21, 0)
RECORDED = {
    "/v1/messages": ("messages", "messages_stream", "messages_tool", "messages_tool_stream"),
    "/v1/responses": ("responses", "responses_stream", "responses_instructions"),
    CHAT: ("chat", "chat_n2", "chat_stream_usage", "chat_n2_stream", "chat_tool_named_stream"),
    "/v1/completions": ("comp", "comp_list_n2", "comp_stream_usage", "comp_list_stream"),
}


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    rows = [service("engine", upstream.url, "tiny")]
    return start_module_daemon(
        {"organizations": [organization(daily_tokens=10_000_000)], "services": rows}
    )


def charged(router: Daemon, path: str, body: Any, *headers: tuple[str, str]) -> int:
    """Tokens that one request costs."""
    before = used(router)
    answered = ask(router, body, path, *headers)
    assert (answered.status, answered.whole) == (200, True)
    until_settled(router)
    return used(router) - before


def reported(body: bytes) -> int | None:
    """The last usage that an answer holds, prompt and completion; None where there is none."""
    start = body.rfind(b'"usage":{')
    if start < 0:
        return None
    told, _ = json.JSONDecoder().raw_decode(body[start + len(b'"usage":') :].decode())
    names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    return sum(told.get(name) or 0 for name in names)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in RECORDED.items() for name in names]
)
def test_a_recorded_answer_of_a_real_vllm_is_charged_what_it_tells(router, upstream, path, name):
    recording = load(FOLDER / "http" / f"{name}.response.http")
    upstream.script = lambda _: recording.steps()
    own = recording.own_request()
    assert own is not None
    assert own[0] == path
    told = reported(recording.body)
    cost = charged(router, path, own[1])
    if told is None:
        assert cost > 0
    else:
        assert cost == told


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score", "/pooling",
                                  "/classify", "/embeddings", "/rerank"])  # fmt: skip
def test_what_generates_nothing_is_charged_its_prompt(router, upstream, path):
    upstream.script = lambda _: [Send(compact_answer({"data": [], "usage": TOLD}))]
    body = {"model": "tiny", "input": "x", "query": "q", "documents": ["a", "b"], "text_1": "t"}
    assert charged(router, path, body) == 21


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens"])
def test_what_uses_no_gpu_is_charged_a_request_and_no_tokens(router, upstream, path):
    upstream.script = lambda _: [Send(compact_answer({"count": 5, "input_tokens": 5}))]
    requests = windows(router)["requests", "day"]["used"]
    assert charged(router, path, {"model": "tiny", "prompt": "x" * 500}) == 0
    assert windows(router)["requests", "day"]["used"] == requests + 1


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
def test_sound_is_charged_the_tokens_that_are_told(router, upstream, path):
    told = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    upstream.script = lambda _: [Send(compact_answer({"text": "hi", "usage": told}))]
    assert charged(router, path, FORM, MULTIPART) == 59


@pytest.mark.parametrize("told", [{"type": "duration", "seconds": 4}, None])
def test_sound_that_tells_no_tokens_costs_no_more_than_the_context(router, upstream, told):
    """vLLM tells seconds; the form's bytes are sound, not text, and are no measure of tokens."""
    upstream.script = lambda _: [Send(compact_answer({"text": "hi", "usage": told}))]
    overruns = router.metric("router_ledger_overruns")
    assert 0 < charged(router, "/v1/audio/transcriptions", FORM, MULTIPART) <= 2 * 512
    assert router.metric("router_ledger_overruns") == overruns


def test_a_usage_inside_what_the_model_said_is_not_the_answers_own(router, upstream):
    """A tool's input is raw JSON in Anthropic's form, and the model may write any key into it."""
    said = {"type": "tool_use", "input": {"usage": {"input_tokens": 900, "output_tokens": 900}}}
    told = {"input_tokens": 13, "output_tokens": 8}
    upstream.script = lambda _: [Send(compact_answer({"content": [said], "usage": told}))]
    body = chat("tiny", max_tokens=20)
    assert charged(router, "/v1/messages", body) == 21


@pytest.mark.parametrize(
    ("path", "body", "before", "told", "after"),
    [
        (
            "/v1/rerank",
            {"model": "tiny", "query": "q", "documents": ["usage", "b"]},
            {},
            usage(300, 0),
            {"results": [{"index": 0, "document": {"text": "usage"}, "relevance_score": 0.5}]},
        ),
        (
            CHAT,
            chat("tiny", max_tokens=100, prompt_logprobs=1),
            {"choices": [{"index": 0, "message": {"content": "x"}}]},
            usage(200, 100),
            {"prompt_logprobs": [None, {"7": {"logprob": -1.0, "decoded_token": "usage"}}]},
        ),
        (
            "/v1/responses",
            {"model": "tiny", "input": "hi", "max_output_tokens": 100, "user": "usage"},
            {"output": []},
            {"input_tokens": 200, "output_tokens": 100, "total_tokens": 300},
            {"user": "usage"},
        ),
    ],
    ids=["rerank", "prompt_logprobs", "user"],
)
def test_the_word_behind_the_usage_does_not_hide_it(
    router, upstream, path, body, before, told, after
):
    """The keys are in the order in which vLLM writes them."""
    content = {"id": "x", **before, "usage": told, **after}
    upstream.script = lambda _: [Send(compact_answer(content))]
    assert charged(router, path, body) == 300


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_prompt_costs_the_same_when_the_engine_has_it_in_its_cache(tmp_path, start_daemon, path):
    """On messages the engine tells what it had cached apart from the rest of the prompt."""
    words = [{"role": "user", "content": "many words to be cached " * 100}]
    body = {"model": "tiny", "max_tokens": 4, "messages": words}
    with Engine(tmp_path, "tiny", "--time-scale", "100") as engine:
        rows = [service("engine", engine.url, "tiny")]
        router = start_daemon({"organizations": [organization(daily_tokens=10**6)],
                               "services": rows})  # fmt: skip
        costs = [charged(router, path, {**body, **more}) for more in ({}, {}, {"stream": True})]
    assert costs == [costs[0]] * 3
    assert costs[0] > 100


@pytest.mark.parametrize("indent", [None, 2])
def test_usage_is_read_however_the_json_is_spaced(router, upstream, indent):
    content = {"choices": [], "usage": usage(300, 100)}
    upstream.script = lambda _: [Send(answer(json.dumps(content, indent=indent).encode()))]
    assert charged(router, CHAT, chat("tiny")) == 400


@pytest.mark.parametrize("cut", range(0, 140, 7))
def test_usage_is_read_wherever_the_bytes_are_cut(router, upstream, cut):
    body = compact({"choices": [{"text": "x" * 20}], "usage": usage(300, 100)})
    whole = answer(body)
    at = len(whole) - cut
    upstream.script = lambda _: [Send(whole[:at]), Send(whole[at:])]
    assert charged(router, CHAT, chat("tiny")) == 400


def test_an_engine_that_tells_no_usage_is_counted_by_events_and_named_once(start_metered):
    events = [{"choices": [{"index": 0, "delta": {"content": "x"}}]}] * 20
    router, _ = start_metered(lambda _: stream_of(*events, DONE), daily_tokens=100_000)
    costs = [charged(router, CHAT, chat("tiny", stream=True)) for _ in range(3)]
    assert len(set(costs)) == 1
    prompt = len(json.dumps(chat("tiny", stream=True))) // 4
    assert 20 + prompt <= costs[0] <= 21 + prompt
    [line] = log_lines(router, "usage_not_reported")
    assert (line["service"], line["counted_by"]) == ("engine", "events")


def test_a_batch_that_is_left_costs_every_prompt_that_was_answered(start_metered):
    """Each event tells the tokens of its own prompt."""
    events = [
        {"choices": [{"index": index, "text": "x"}], "usage": usage(30, 1)} for index in range(8)
    ]
    sent = b"".join(chunk(b"data: " + compact(each) + b"\n\n") for each in events)
    router, upstream = start_metered(
        lambda _: [Send(stream_head()), Send(sent), Stall()], daily_tokens=10_000
    )
    body = {"model": "tiny", "prompt": ["a"] * 8, "max_tokens": 1, "stream": True}
    with Client(router.port) as client:
        response = client.request("POST", "/v1/completions", body, BEARER)
        while response.body.count(b"data: ") < 8:
            assert response.more()
    upstream.wait_closed(upstream.requests[0])
    until_settled(router)
    assert used(router) == 8 * 31


def test_a_stream_that_is_left_costs_what_it_had_told(start_metered):
    events = [
        {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage(30, tokens)}
        for tokens in (2, 5, 9)
    ]
    parts = [Send(chunk(b"data: " + compact(each) + b"\n\n")) for each in events]
    router, upstream = start_metered(
        lambda _: [Send(stream_head()), *parts, Stall()], daily_tokens=10_000
    )
    with Client(router.port) as client:
        response = client.request("POST", CHAT, chat("tiny", stream=True), BEARER)
        while response.body.count(b"data: ") < 3:
            assert response.more()
    upstream.wait_closed(upstream.requests[0])
    until_settled(router)
    assert used(router) == 39
