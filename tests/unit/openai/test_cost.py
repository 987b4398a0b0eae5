"""The bound on a request's cost: no engine may ever charge more, whatever the body says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.body import read_fields
from router.openai.cost import (
    FRAME_TOKENS,
    MEDIA_TOKENS,
    UNKNOWN_CONTEXT_TOKENS,
    Cost,
    is_countable,
    most,
)
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS

CONTEXT = 32_768
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
LINK = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}


def cost_of(
    path: str, body: dict[str, Any] | bytes, context: int | None = CONTEXT, **more: Any
) -> Cost:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    row = INFERENCE_PATHS[path]
    fields = read_fields(raw)
    return most(row, fields, raw, context=context, **{"frame": FRAME_TOKENS, **more})


def countable(path: str, body: dict[str, Any] | bytes) -> bool:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return is_countable(INFERENCE_PATHS[path], read_fields(raw), raw)


def chat(context: int | None = CONTEXT, **fields: Any) -> Cost:
    return cost_of(CHAT, {"model": "m", "messages": HELLO, **fields}, context)


def completions(context: int | None = CONTEXT, **fields: Any) -> Cost:
    return cost_of(COMPLETIONS, {"model": "m", "prompt": "hello", **fields}, context)


# -- the prompt --------------------------------------------------------------------------------


def test_a_prompt_is_taken_for_a_token_a_byte_and_the_frame():
    body = b'{"model":"m","messages":[]}'
    assert cost_of(CHAT, body).prompt_tokens == len(body) + FRAME_TOKENS


def test_a_prompt_is_at_most_the_context():
    assert (
        chat(context=512, messages=[{"role": "user", "content": "x" * 9000}]).prompt_tokens == 512
    )


def test_several_prompts_are_at_most_the_context_each():
    cost = completions(context=512, prompt=["x" * 9000, "y" * 9000])
    assert cost.prompt_tokens == 1024


def test_an_exact_count_takes_the_place_of_the_bytes():
    body = {"model": "m", "messages": HELLO, "max_tokens": 5}
    assert cost_of(CHAT, body, counted=9).prompt_tokens == 9


def test_a_single_chat_or_completion_can_be_counted_by_the_engine():
    assert countable(CHAT, {"messages": HELLO})
    assert countable(COMPLETIONS, {"prompt": "a"})
    assert not countable(COMPLETIONS, {"prompt": ["a", "b"]})
    assert not countable("/v1/embeddings", {"input": "a"})
    assert not countable("/v1/responses", {"input": "a"})


@pytest.mark.parametrize("name", ["documents", "doc\\u0075ments"])
def test_a_chat_about_documents_can_not_be_counted_by_the_engine(name):
    """Its `/tokenize` knows no `documents`; the template does."""
    body = b'{"messages":[],"%b":[{"text":"x"}]}' % name.encode()
    assert not countable(CHAT, body)


def test_a_chat_that_has_a_prompt_too_can_not_be_counted_by_the_engine():
    """Its `/tokenize` would count that instead."""
    assert not countable(CHAT, {"messages": HELLO, "prompt": "x"})


def tool(*parameters: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


@pytest.mark.xfail(strict=True, reason="any key of such a name is taken for a medium")
@pytest.mark.parametrize("parameter", ["file", "image", "base_url", "document"])
def test_a_tool_whose_parameter_sounds_like_a_medium_is_no_medium(parameter):
    """Else agents are bounded by their whole context, and near a quota's end never counted."""
    body = {"messages": HELLO, "tools": [tool(parameter)]}
    assert countable(CHAT, body)
    assert cost_of(CHAT, {"model": "m", "max_tokens": 1, **body}).prompt_tokens < 1000


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (CHAT, LINK),
        (CHAT, {"type": "video_url", "video_url": {"url": "http://a"}}),
        (CHAT, {"type": "audio_url", "audio_url": {"url": "http://a"}}),
        (CHAT, {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}),
        (CHAT, {"image_url": "http://a/b.png"}),
        ("/v1/messages", {"type": "image", "source": {"type": "url", "url": "http://a"}}),
        ("/v1/messages", {"type": "document", "source": {"type": "url", "url": "http://a"}}),
    ],
)
def test_a_medium_named_by_a_link_counts_beyond_its_bytes(path, part):
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    assert cost_of(path, body).prompt_tokens >= MEDIA_TOKENS
    assert not countable(path, body)


@pytest.mark.parametrize("kind", ["input_image", "input_file"])
def test_a_medium_in_a_response_counts_beyond_its_bytes(kind):
    part = {"type": kind, "image_url": "http://a"}
    body = {"model": "m", "input": [{"role": "user", "content": [part]}]}
    assert cost_of("/v1/responses", body).prompt_tokens >= MEDIA_TOKENS


def test_two_media_count_twice():
    content = [LINK, LINK]
    cost = chat(context=None, messages=[{"role": "user", "content": content}])
    assert cost.prompt_tokens >= 2 * MEDIA_TOKENS


def test_words_that_only_sound_like_media_count_as_words():
    words = 'a "image_url" and an "input_audio" in a text'
    assert chat(messages=[{"role": "user", "content": words}]).prompt_tokens < 1000


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (CHAT, rb'{"type":"image\u005furl","image\u005furl":{"url":"http://a"}}'),
        ("/v1/messages", rb'{"type":"im\u0061ge","source":{"type":"url","url":"http://a"}}'),
    ],
)
def test_an_escaped_name_hides_no_medium(path, part):
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[%b]}]}' % part
    assert cost_of(path, body).prompt_tokens >= MEDIA_TOKENS


CONVERSATION = [{"role": "user", "content": [LINK]}]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"messages": CONVERSATION}),
        ("/pooling", {"messages": CONVERSATION}),
        ("/classify", {"messages": CONVERSATION}),
        ("/v1/rerank", {"query": "q", "documents": [{"content": [LINK]}]}),
        ("/v1/score", {"text_1": {"content": [LINK]}, "text_2": ["a"]}),
        pytest.param(
            *("/v1/score", {"text_1": {"content": [LINK]}, "text_2": "a"}),
            marks=pytest.mark.xfail(strict=True, reason="one list alone: taken for a plain text"),
        ),
        pytest.param(
            *("/v1/rerank", {"query": "q", "documents": {"content": [LINK]}}),
            marks=pytest.mark.xfail(strict=True, reason="one list alone: taken for a plain text"),
        ),
    ],
)
def test_media_count_wherever_an_engine_takes_them(path, fields):
    assert cost_of(path, {"model": "m", **fields}).prompt_tokens >= MEDIA_TOKENS


# -- the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [7, 7.0, "7", " 7 ", "7.0"])
def test_a_chats_limit_is_read_as_the_engine_reads_it(name, value):
    cost = chat(**{name: value})
    assert (cost.completion_tokens, cost.limit_field) == (7, name)


def test_the_newer_of_two_limits_counts():
    cost = chat(max_tokens=5, max_completion_tokens=900)
    assert (cost.completion_tokens, cost.limit_field) == (900, "max_completion_tokens")


def test_a_null_beside_a_limit_does_not_hide_it():
    cost = chat(max_tokens=5, max_completion_tokens=None)
    assert (cost.completion_tokens, cost.limit_field) == (5, "max_tokens")


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        (CHAT, {"messages": HELLO}, "max_tokens"),
        ("/v1/responses", {"input": "hello"}, "max_output_tokens"),
        ("/v1/messages", {"messages": HELLO}, "max_tokens"),
    ],
)
def test_without_a_limit_an_answer_may_fill_the_context(path, fields, name):
    cost = cost_of(path, {"model": "m", **fields})
    assert cost.prompt_tokens + cost.completion_tokens == CONTEXT
    assert (cost.limit_field, cost.must_limit) == (name, False)


def test_where_no_context_is_known_a_limit_must_be_written():
    cost = chat(context=None)
    assert (cost.completion_tokens, cost.must_limit) == (UNKNOWN_CONTEXT_TOKENS, True)


def test_where_no_context_is_known_the_clients_own_limit_stays():
    cost = chat(context=None, max_tokens=100_000)
    assert (cost.completion_tokens, cost.must_limit) == (100_000, False)


@pytest.mark.parametrize("fields", [{"n": 3}, {"n": "3"}, {"n": 3.0}, {"n": 2, "best_of": 3}])
def test_each_of_several_answers_counts(fields):
    cost = chat(max_tokens=100, **fields)
    assert (cost.completion_tokens, cost.choices) == (300, 3)


@pytest.mark.parametrize("n", [0, -5, None])
def test_no_number_of_answers_makes_an_answer_free(n):
    assert chat(max_tokens=100, n=n).completion_tokens == 100


@pytest.mark.parametrize("limit", [-1, -(2**62), 0])
def test_a_limit_that_the_engine_refuses_is_no_credit(limit):
    """What is reserved may be little, for it is not going to be answered, but never negative."""
    assert chat(max_tokens=limit).completion_tokens >= 0
    assert chat(context=None, max_tokens=limit).completion_tokens >= 0


@pytest.mark.parametrize("limit", [2**62, 1e15, "9" * 400, 2**63 - 1])
def test_a_huge_limit_is_the_context(limit):
    cost = chat(max_tokens=limit)
    assert cost.prompt_tokens + cost.completion_tokens == CONTEXT


@pytest.mark.parametrize("limit", ["inf", "nan", "seven", 7.5])
def test_a_limit_that_is_no_number_is_as_if_not_given(limit):
    cost = chat(max_tokens=limit)
    assert cost.prompt_tokens + cost.completion_tokens == CONTEXT


def test_an_answer_must_be_let_have_what_the_client_asks_for_at_least():
    """The engine refuses a limit below `min_tokens`: better a 429 than its 400."""
    assert chat(max_tokens=100, min_tokens=40, n=2).least_tokens == 80
    assert chat(max_tokens=100).least_tokens == 1


# -- completions -------------------------------------------------------------------------------


def test_a_completion_without_a_limit_has_sixteen_tokens():
    assert completions().completion_tokens == 16


def test_a_completion_whose_limit_is_null_may_fill_the_context():
    cost = completions(max_tokens=None)
    assert cost.prompt_tokens + cost.completion_tokens == CONTEXT


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1),
        ([1, 2, 3], 1),
        ([[1, 2], [3], [4]], 3),
        (["a", "b", "c"], 3),
        (['"', "[", '\\"'], 3),
        ([""], 1),
        ([], 1),
    ],
)
def test_every_prompt_of_a_list_is_answered(prompt, count):
    cost = completions(prompt=prompt, max_tokens=10, n=2)
    assert cost.choices >= 2 * count
    assert cost.completion_tokens >= 20 * count


@given(st.lists(st.text(max_size=5), min_size=1, max_size=20), st.booleans())
def test_no_list_of_texts_has_more_prompts_than_were_counted(texts, ascii_only):
    raw = json.dumps({"model": "m", "prompt": texts, "max_tokens": 1}, ensure_ascii=ascii_only)
    assert cost_of(COMPLETIONS, raw.encode("utf-8", "replace")).choices >= len(texts)


@given(st.lists(st.lists(st.integers(0, 10**5), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_list_of_token_ids_is_dearer_than_its_bytes(prompts):
    cost = completions(prompt=prompts, max_tokens=3)
    assert cost.choices >= len(prompts)
    assert cost.prompt_tokens >= sum(map(len, prompts)) + len(prompts)
    assert cost.completion_tokens >= 3 * len(prompts)


@pytest.mark.xfail(strict=True, reason="`prompt_embeds` are prompts too, and not counted")
def test_prompts_given_as_embeddings_are_answered_too():
    cost = completions(prompt=None, prompt_embeds=["AAAA", "BBBB"], max_tokens=10)
    assert cost.completion_tokens >= 20


# -- paths without an answer -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens"])
def test_counting_tokens_costs_none(path):
    assert cost_of(path, {"model": "m", "prompt": "x" * 999}) == Cost(0, 0)


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/pooling", "/classify", "/v1/rerank", "/v1/score"]
)
def test_what_generates_nothing_costs_its_prompt_alone(path):
    cost = cost_of(path, {"model": "m", "input": "hello", "max_tokens": 999, "n": 9})
    assert (cost.completion_tokens, cost.limit_field) == (0, None)
    assert cost.prompt_tokens >= len("hello")


QUERY = "q" * 500


@pytest.mark.xfail(strict=True, reason="a medium in the query is counted once")
def test_a_picture_that_is_asked_about_counts_once_for_each_document():
    cost = cost_of(
        "/v1/rerank", {"model": "m", "query": {"content": [LINK]}, "documents": ["d"] * 9}
    )
    assert cost.prompt_tokens >= 9 * MEDIA_TOKENS


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": ["d"] * 40}),
        ("/v1/score", {"text_1": QUERY, "text_2": ["d"] * 40}),
    ],
)
def test_a_query_counts_once_for_each_document(path, fields):
    assert cost_of(path, {"model": "m", **fields}).prompt_tokens >= 40 * len(QUERY)


@pytest.mark.parametrize(
    "fields",
    [
        {"queries": QUERY, "documents": ["d"] * 40},
        {"queries": QUERY, "items": ["d"] * 40},
        {"data_1": QUERY, "data_2": ["d"] * 40},
    ],
)
def test_a_query_of_another_name_counts_once_for_each_document(fields):
    assert cost_of("/v1/score", {"model": "m", **fields}).prompt_tokens >= 40 * len(QUERY)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"query": "q", "documents": ["d"] * 40}),
        ("/v1/score", {"text_1": "q", "text_2": ["d"] * 40}),
    ],
)
def test_an_instruction_counts_once_for_each_document(path, fields):
    cost = cost_of(path, {"model": "m", "instruction": QUERY, **fields})
    assert cost.prompt_tokens >= 40 * len(QUERY)


def test_a_template_counts_once_for_each_document():
    """Forty documents under a template of 90 tokens, as rerankers that are chat models have it."""
    cost = cost_of("/v1/rerank", {"model": "m", "query": "q", "documents": ["d"] * 40})
    assert cost.prompt_tokens >= 40 * (90 + 2)


# -- responses, audio --------------------------------------------------------------------------


def test_a_response_that_goes_on_from_another_may_have_any_prompt():
    body = {"model": "m", "input": "go on", "previous_response_id": "resp_1"}
    assert cost_of("/v1/responses", {**body, "max_output_tokens": 5}).prompt_tokens == CONTEXT


def audio(size: int, context: int | None) -> Cost:
    row = BY_UPSTREAM["/v1/audio/transcriptions"]
    return most(row, read_fields(b"{}"), b"x" * size, context=context, frame=FRAME_TOKENS)


def test_a_short_recording_is_taken_for_a_context_and_an_answer_that_fills_it():
    cost = audio(20_000, 448)
    assert (cost.prompt_tokens, cost.completion_tokens, cost.limit_field) == (448, 448, None)
    assert audio(20_000, None).completion_tokens == UNKNOWN_CONTEXT_TOKENS


def test_a_recording_of_many_pieces_has_an_answer_for_each():
    """25 MB are at least 13 minutes of speech at 256 kbit/s: 26 pieces of half a minute."""
    assert audio(25_000_000, 448).completion_tokens >= 26 * 448


def test_all_of_a_recording_must_fit_for_nothing_in_its_form_bounds_the_answer():
    cost = audio(25_000_000, 448)
    assert cost.least_tokens == cost.completion_tokens


# -- all of it against an engine at its worst --------------------------------------------------

MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text()}),
    max_size=6,
)


def worst_prompt(messages: list[dict[str, str]]) -> int:
    """A token a byte; six for each message and forty for a default system prompt."""
    return 40 + sum(6 + len(m["content"].encode("utf-8", "replace")) for m in messages)


@given(
    messages=MESSAGES,
    share=st.floats(0, 1),
    limit=st.none() | st.integers(1, 2000),
    n=st.none() | st.integers(1, 5),
    context=st.integers(64, 2000),
    left=st.integers(0, 5000),
    exact=st.booleans(),
)
def test_no_chat_that_an_engine_answers_runs_past_what_was_held(
    messages, share, limit, n, context, left, exact
):
    """Whole or clamped to what is left, by the bytes or by the engine's own count of the prompt."""
    told = {"max_tokens": limit, "n": n}
    body = {"model": "m", "messages": messages} | {k: v for k, v in told.items() if v is not None}
    prompt = int(worst_prompt(messages) * share)
    cost = cost_of(CHAT, body, context, counted=prompt if exact else None)
    held_answer = min(cost.completion_tokens, left - cost.prompt_tokens)
    if held_answer < cost.choices:
        return  # refused
    if held_answer < cost.completion_tokens:
        limit = max(1, held_answer // cost.choices)
    if prompt >= context or (limit is not None and prompt + limit > context):
        return  # the engine refuses
    answer = min(limit if limit is not None else context, context - prompt) * (n or 1)
    assert prompt + answer <= cost.prompt_tokens + held_answer


@given(
    prompts=st.lists(st.text(max_size=20), min_size=1, max_size=5),
    limit=st.none() | st.integers(1, 200),
    n=st.integers(1, 4),
    context=st.integers(16, 300),
    left=st.integers(0, 3000),
)
def test_no_completions_that_an_engine_answers_run_past_what_was_held(
    prompts, limit, n, context, left
):
    body = {"model": "m", "prompt": prompts, "n": n}
    cost = cost_of(COMPLETIONS, body if limit is None else {**body, "max_tokens": limit}, context)
    held_answer = min(cost.completion_tokens, left - cost.prompt_tokens)
    if held_answer < cost.choices:
        return
    each = 16 if limit is None else limit
    if held_answer < cost.completion_tokens:
        each = max(1, held_answer // cost.choices)
    sizes = [1 + len(text.encode("utf-8", "replace")) for text in prompts]
    if any(size + each > context for size in sizes):
        return
    assert sum(sizes) + each * n * len(prompts) <= cost.prompt_tokens + held_answer
