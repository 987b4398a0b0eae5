"""The policies: pure functions that share a model's calls over the services that can take them."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.fields import Policy
from router.routing import POLICIES
from router.routing.policies import least_load, round_robin


@dataclass(frozen=True)
class Place:
    """A candidate."""

    name: str
    in_flight: int = 0
    weight: int = 1


CANDIDATES = st.lists(
    st.builds(Place, st.uuids().map(str), st.integers(0, 50), st.integers(1, 20)),
    min_size=1,
    max_size=6,
)
TURNS = st.integers(0, 10_000)


@pytest.mark.parametrize("name", POLICIES)
@given(candidates=CANDIDATES, turn=TURNS)
def test_a_policy_returns_one_of_the_candidates(name, candidates, turn):
    assert POLICIES[name](candidates, turn) in candidates


@pytest.mark.parametrize("name", POLICIES)
@given(candidates=CANDIDATES, turn=TURNS)
def test_a_policy_is_pure(name, candidates, turn):
    before = list(candidates)
    chosen = [POLICIES[name](candidates, turn) for _ in range(3)]
    assert candidates == before
    assert chosen[0] is chosen[1] is chosen[2]


@pytest.mark.parametrize("name", POLICIES)
@given(turn=TURNS)
def test_a_single_candidate_is_taken_whatever_its_load(name, turn):
    only = Place("a", in_flight=1000, weight=3)
    assert POLICIES[name]([only], turn) is only


@given(CANDIDATES, TURNS)
def test_round_robin_gives_each_exactly_its_weight_in_any_full_round(candidates, start):
    total = sum(candidate.weight for candidate in candidates)
    chosen = Counter(round_robin(candidates, turn) for turn in range(start, start + total))
    assert chosen == {candidate: candidate.weight for candidate in candidates}


@given(CANDIDATES)
def test_round_robin_gives_a_weights_turns_in_a_row(candidates):
    total = sum(candidate.weight for candidate in candidates)
    names = [round_robin(candidates, turn).name for turn in range(total)]
    changes = sum(one != other for one, other in itertools.pairwise(names))
    assert changes == len(candidates) - 1


@given(CANDIDATES, TURNS)
def test_round_robin_does_not_look_at_the_load(candidates, turn):
    idle = [Place(c.name, 0, c.weight) for c in candidates]
    assert round_robin(candidates, turn).name == round_robin(idle, turn).name


@given(CANDIDATES, TURNS)
def test_least_load_takes_none_with_more_per_weight_than_another(candidates, turn):
    chosen = least_load(candidates, turn)
    assert chosen.in_flight / chosen.weight == min(c.in_flight / c.weight for c in candidates)


@given(st.integers(1, 6), st.integers(0, 9), TURNS)
def test_least_load_gives_equals_a_turn_each(count, load, start):
    candidates = [Place(str(number), load) for number in range(count)]
    chosen = Counter(least_load(candidates, turn).name for turn in range(start, start + count))
    assert set(chosen.values()) == {1}
    assert len(chosen) == count


def test_least_load_counts_a_heavier_ones_load_against_its_weight():
    heavy, light = Place("heavy", in_flight=5, weight=3), Place("light", in_flight=2, weight=1)
    assert [least_load([heavy, light], turn) for turn in (0, 1)] == [heavy, heavy]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 200))
def test_under_least_load_calls_that_stay_fill_services_by_weight(weights, calls):
    """No service ever holds more than its share and one call on top."""
    held = [0] * len(weights)
    for turn in range(calls):
        candidates = [Place(str(n), held[n], weight) for n, weight in enumerate(weights)]
        held[int(least_load(candidates, turn).name)] += 1
    for count, weight in zip(held, weights, strict=True):
        assert count <= calls * weight / sum(weights) + 1


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        POLICIES["mine"] = round_robin  # type: ignore[index]


def test_the_table_has_the_policies_by_their_names_in_the_configuration():
    assert POLICIES["round_robin"] is round_robin
    assert POLICIES["least_load"] is least_load


def test_the_configuration_takes_those_that_there_are():
    literal, _ = get_args(Policy)
    assert set(get_args(literal)) == set(POLICIES)
