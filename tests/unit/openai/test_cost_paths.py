"""The bound on what completions, embeddings, rerank, score, responses and audio cost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.body import read_fields
from router.openai.cost import (
    FRAME_TOKENS,
    MEDIA_TOKENS,
    UNKNOWN_CONTEXT_TOKENS,
    Cost,
    most,
)
from router.openai.paths import BY_UPSTREAM
from unit.openai.cost_fakes import (
    COMPLETIONS,
    CONTEXT,
    LINK,
    completions,
    cost_of,
    countable,
)

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


@pytest.mark.parametrize(
    ("prompt", "embeds", "count"),
    [
        (None, "AAAA", 1),
        (None, ["AAAA", "BBBB"], 2),
        ("", ["AAAA"] * 8, 8),
        (["a", "b"], ["AAAA"], 3),
    ],
)
def test_prompts_given_as_embeddings_are_answered_too(prompt, embeds, count):
    cost = completions(prompt=prompt, prompt_embeds=embeds, max_tokens=10)
    assert cost.completion_tokens >= 10 * count


def test_a_prompt_given_as_embeddings_counts_beyond_its_bytes():
    """A tensor may be sparse: its bytes do not tell how many rows it has."""
    cost = completions(prompt=None, prompt_embeds=["AAAA", "BBBB"], max_tokens=10)
    assert cost.prompt_tokens >= 2 * MEDIA_TOKENS


@pytest.mark.parametrize("prompt", [None, "", "a"])
def test_a_prompt_given_as_embeddings_can_not_be_counted_by_the_engine(prompt):
    """Its `/tokenize` would count the text alone."""
    assert not countable(COMPLETIONS, {"prompt": prompt, "prompt_embeds": "AAAA"})


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


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"query": {"content": [LINK]}, "documents": ["d"] * 9}),
        ("/v1/score", {"text_1": {"content": [LINK]}, "text_2": ["d"] * 9}),
        ("/v1/score", {"queries": {"content": [LINK]}, "items": ["d"] * 9}),
    ],
)
def test_a_picture_that_is_asked_about_counts_once_for_each_document(path, fields):
    assert cost_of(path, {"model": "m", **fields}).prompt_tokens >= 9 * MEDIA_TOKENS


def test_a_frame_is_added_for_each_document():
    cost = cost_of("/v1/rerank", {"model": "m", "query": "q", "documents": ["d"] * 40})
    assert cost.frames >= 40


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
