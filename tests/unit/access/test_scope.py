"""Which names the patterns of a key fit."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.access.identity import ANONYMOUS, Identity
from router.access.scope import ModelScope

names = st.text("ab*.", max_size=12)


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (("*",), "Qwen/Qwen2.5-7B-Instruct", True),
        (("**",), "any", True),
        (("Qwen/*",), "Qwen/Qwen2.5-7B-Instruct", True),
        (("Qwen/*",), "Qwen", False),
        (("Qwen/*",), "qwen/Qwen2.5", False),
        (("Qwen/*",), "my-Qwen/x", False),
        (("*-Instruct",), "Qwen/Qwen2.5-7B-Instruct", True),
        (("*7B*",), "Qwen/Qwen2.5-7B-Instruct", True),
        (("a*b*a",), "aba", True),
        (("ab*ba",), "aba", False),
        (("chat", "embed"), "embed", True),
        (("chat", "embed"), "chatembed", False),
        (("chat|embed", "a.c"), "abc", False),
        (("Qwen2.5-[7B]?",), "Qwen2.5-[7B]?", True),
        (("Qwen2.5-[7B]?",), "Qwen2.5-7B", False),
        ((), "any", False),
        (("",), "any", False),
        (("a*",), "a\nb", True),
    ],
)
def test_a_star_is_any_characters_and_everything_else_is_itself(
    patterns: tuple[str, ...], model: str, allowed: bool
) -> None:
    scope = ModelScope(patterns)
    assert scope.allows(model) is allowed
    assert scope.allows(model) is allowed


@given(pattern=names, model=st.text("ab.", max_size=12))
def test_it_decides_as_a_regular_expression_would(pattern: str, model: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert ModelScope((pattern,)).allows(model) is bool(re.fullmatch(expression, model))


def test_no_pattern_makes_a_name_take_long() -> None:
    """As a plain regular expression this one tries more ways than there are atoms."""
    began = time.monotonic()
    assert not ModelScope(("*a" * 60 + "b",)).allows("a" * 250)
    assert time.monotonic() - began < 5


def test_answers_are_kept_within_a_bound() -> None:
    scope = ModelScope(("org/*",))
    for number in range(5_000):
        assert scope.allows(f"org/{number}")
        assert not scope.allows(f"other/{number}")
    assert len(scope._answers) <= 1_024


def test_identities_are_equal_by_what_they_say() -> None:
    one = Identity("acme", "acme-1", 0, ModelScope(("a*",)))
    one.allows("abc")
    assert one == Identity("acme", "acme-1", 0, ModelScope(("a*",)))
    assert one != Identity("acme", "acme-1", 0, ModelScope(("b*",)))
    assert one.patterns == ("a*",)


def test_nobody_in_particular_may_use_every_model() -> None:
    assert ANONYMOUS.organization is None
    assert ANONYMOUS.allows("any/model")
