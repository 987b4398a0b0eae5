"""What a policy is said to go by is what it goes by."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.routing import POLICIES
from router.routing.measures import MEASURES


@dataclass(frozen=True)
class Candidate:
    in_flight: int
    weight: int


candidates = st.lists(
    st.builds(Candidate, st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=8
)


def test_every_policy_has_a_measure():
    assert set(MEASURES) == set(POLICIES)


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(those=candidates, turn=st.integers(0, 10**6))
def test_the_policy_chooses_one_with_the_lowest_measure(name, those, turn):
    found = MEASURES[name](those, turn)
    chosen = POLICIES[name](those, turn)
    assert len(found) == len(those)
    assert min(found) in [value for value, each in zip(found, those, strict=True) if each == chosen]


@given(those=candidates, turn=st.integers(0, 10**6))
def test_turns_until_is_the_number_of_choices_before_its_own(those, turn):
    found = MEASURES["round_robin"](those, turn)
    for place, wait in enumerate(found):
        same = [Candidate(index, each.weight) for index, each in enumerate(those)]
        assert POLICIES["round_robin"](same, turn + int(wait)).in_flight == place


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_without_candidates_there_is_nothing_to_measure(name):
    assert MEASURES[name]([], 3) == []
