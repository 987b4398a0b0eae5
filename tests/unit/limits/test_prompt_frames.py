"""What prompts of a model cost beyond their bytes: learnt at once, never forgotten, bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.limits import estimate
from router.limits.estimate import PromptFrames
from router.openai.cost import FRAME_TOKENS

SIZES = st.integers(0, 100_000)


def test_it_begins_at_the_constant():
    assert PromptFrames().frame("m") == FRAME_TOKENS


def test_a_prompt_within_its_bound_teaches_nothing():
    frames = PromptFrames()
    frames.learn("m", 1000, 1000)
    assert frames.frame("m") == FRAME_TOKENS


@settings(deadline=None)
@given(st.lists(st.tuples(SIZES, SIZES), max_size=20))
def test_what_was_taken_for_too_little_would_not_be_again(prompts):
    """After each lesson the same prompt's bound is above what it did cost; no frame ever falls."""
    frames = PromptFrames()
    for size, cost in prompts:
        before = frames.frame("m")
        frames.learn("m", size + before, cost)
        assert size + frames.frame("m") >= cost
        assert frames.frame("m") >= before


def test_one_model_teaches_nothing_of_another():
    frames = PromptFrames()
    frames.learn("m", 300, 5000)
    assert frames.frame("n") == FRAME_TOKENS


def test_models_beyond_the_bound_are_not_remembered(monkeypatch):
    monkeypatch.setattr(estimate, "_MAX_MODELS", 2)
    frames = PromptFrames()
    for name in "abcdef":
        frames.learn(name, 300, 5000)
    assert len(frames._frames) == 2


def test_a_model_that_is_known_goes_on_learning_when_the_table_is_full(monkeypatch):
    monkeypatch.setattr(estimate, "_MAX_MODELS", 1)
    frames = PromptFrames()
    frames.learn("a", 300, 5000)
    before = frames.frame("a")
    frames.learn("a", before, before + 1000)
    assert frames.frame("a") > before
