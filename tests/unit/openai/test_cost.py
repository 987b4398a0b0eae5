"""The bound on a request's cost: no engine may ever charge more, whatever the body says."""

from __future__ import annotations

from typing import Any

import pytest

from router.openai.cost import (
    FRAME_TOKENS,
    MEDIA_TOKENS,
    UNKNOWN_CONTEXT_TOKENS,
)
from unit.openai.cost_fakes import (
    CHAT,
    COMPLETIONS,
    CONTEXT,
    HELLO,
    LINK,
    chat,
    completions,
    cost_of,
    countable,
)

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


@pytest.mark.parametrize("parameter", ["file", "image", "base_url", "document"])
def test_a_tool_whose_parameter_sounds_like_a_medium_is_no_medium(parameter):
    """Else agents are bounded by their whole context, and near a quota's end never counted."""
    body = {"messages": HELLO, "tools": [tool(parameter)]}
    assert countable(CHAT, body)
    assert cost_of(CHAT, {"model": "m", "max_tokens": 1, **body}).prompt_tokens < 1000


def test_a_name_in_the_schema_of_an_answer_is_no_medium():
    schema = {"type": "object", "properties": {"image": {"type": "string"}, "tags": {"enum": []}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert chat(response_format=wanted, max_tokens=1).prompt_tokens < 1000


def test_a_medium_beside_tools_whose_parameters_sound_like_one_counts():
    messages = [{"role": "user", "content": [LINK]}]
    body = {"model": "m", "messages": messages, "tools": [tool("image")], "max_tokens": 1}
    assert cost_of(CHAT, body).prompt_tokens >= MEDIA_TOKENS
    assert not countable(CHAT, body)


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
        ("/v1/score", {"text_1": {"content": [LINK]}, "text_2": "a"}),
        ("/v1/rerank", {"query": "q", "documents": {"content": [LINK]}}),
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
