"""The bound against an engine at its worst: a token a byte, every answer as long as it may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unit.openai.cost_fakes import (
    CHAT,
    COMPLETIONS,
    cost_of,
)

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
