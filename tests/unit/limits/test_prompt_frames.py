"""What prompts of a model cost beyond their bytes: learnt at once, never forgotten, bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.limits import estimate
from router.limits.estimate import PromptFrames
from router.openai.cost import FRAME_TOKENS, MEDIA_TOKENS, Cost

SIZES = st.integers(0, 100_000)
COST = Cost(300, 0, frame=FRAME_TOKENS)


def test_it_begins_at_the_constant():
    assert PromptFrames()["m"] == FRAME_TOKENS


def test_a_prompt_within_its_bound_teaches_nothing():
    frames = PromptFrames()
    frames.learn("m", Cost(1000, 0, frame=FRAME_TOKENS), 1000, None)
    assert frames["m"] == FRAME_TOKENS


@settings(deadline=None)
@given(st.lists(st.tuples(SIZES, SIZES), max_size=20))
def test_what_was_taken_for_too_little_would_not_be_again(prompts):
    """After each lesson the same prompt's bound is above what it did cost; no frame ever falls."""
    frames = PromptFrames()
    for size, cost in prompts:
        before = frames["m"]
        frames.learn("m", Cost(size + before, 0, frame=before), cost, 1_000_000)
        assert size + frames["m"] >= cost
        assert frames["m"] >= before


def test_one_model_teaches_nothing_of_another():
    frames = PromptFrames()
    frames.learn("m", COST, 5000, None)
    assert frames["n"] == FRAME_TOKENS


def test_models_beyond_the_bound_are_not_remembered(monkeypatch):
    monkeypatch.setattr(estimate, "_MAX_MODELS", 2)
    frames = PromptFrames()
    for name in "abcdef":
        frames.learn(name, COST, 5000, None)
    assert len(frames) == 2


def test_a_model_that_is_known_goes_on_learning_when_the_table_is_full(monkeypatch):
    monkeypatch.setattr(estimate, "_MAX_MODELS", 1)
    frames = PromptFrames()
    frames.learn("a", COST, 5000, None)
    before = frames["a"]
    frames.learn("a", Cost(before, 0, frame=before), before + 1000, None)
    assert frames["a"] > before


@settings(deadline=None)
@given(st.integers(1, 10**15), st.none() | st.integers(FRAME_TOKENS, 10**6))
def test_nobody_has_to_reserve_more_than_a_context_for_what_one_answer_told(told, context):
    frames = PromptFrames()
    frames.learn("m", COST, told, context)
    assert frames["m"] <= (context or MEDIA_TOKENS)


def test_a_context_that_became_shorter_lowers_no_frame():
    frames = PromptFrames()
    frames.learn("m", COST, 5000, 8000)
    before = frames["m"]
    frames.learn("m", COST, 5000, 1000)
    assert frames["m"] == before


def test_what_many_prompts_cost_too_much_is_shared_by_their_frames():
    """Ten tokens more before each of a thousand documents are no frame of ten thousand."""
    frames = PromptFrames()
    frames.learn("m", Cost(300_000, 0, frame=FRAME_TOKENS, frames=1000), 310_000, 8000)
    assert FRAME_TOKENS + 10 <= frames["m"] < 2 * FRAME_TOKENS


def test_many_that_ran_at_once_teach_what_one_of_them_does():
    frames = PromptFrames()
    frames.learn("m", COST, 310, 32_768)
    once = frames["m"]
    for _ in range(25):
        frames.learn("m", COST, 310, 32_768)
    assert frames["m"] == once


def test_what_the_engine_counted_teaches_no_frame():
    """Its count had none: to answer with a token more is no reason to hold more of everybody."""
    frames = PromptFrames()
    frames.learn("m", Cost(300, 5), 301, 32_768)
    assert frames["m"] == FRAME_TOKENS
