"""Extra load that failover may bring: a fifth of what came in the last ten seconds, or ten."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.proxy.budget import MoveBudget

NOW = 5000.0


def taken(budget: MoveBudget, now: float, tries: int = 1000) -> int:
    """How many of so many moves are allowed."""
    return sum(budget.take(now) for _ in range(tries))


def after_requests(count: int, now: float = NOW) -> MoveBudget:
    budget = MoveBudget()
    for _ in range(count):
        budget.note_request()
    budget.roll(now)
    return budget


def test_ten_moves_are_allowed_though_nothing_came():
    assert taken(MoveBudget(), NOW) == 10


def test_a_fifth_of_what_came_is_allowed_where_that_is_more():
    assert taken(after_requests(100), NOW) == 20


def test_less_than_fifty_requests_still_allow_ten():
    assert taken(after_requests(49), NOW) == 10


def test_a_refused_move_is_not_counted():
    budget = after_requests(0)
    taken(budget, NOW)
    for _ in range(55):
        budget.note_request()
    assert taken(budget, NOW) == 1


@pytest.mark.parametrize("later_s", [10, 11, 19, 25, 10_000])
def test_what_is_ten_seconds_old_counts_no_more(later_s):
    budget = after_requests(1000)
    taken(budget, NOW)
    assert taken(budget, NOW + later_s) == 10


def test_what_is_nine_seconds_old_still_counts():
    budget = after_requests(1000)
    assert taken(budget, NOW + 9) == 200
    assert taken(budget, NOW + 9) == 0


def test_moves_come_back_second_by_second():
    budget = MoveBudget()
    for second in range(10):
        assert budget.take(NOW + second)
    assert not budget.take(NOW + 9.5)
    assert taken(budget, NOW + 10) == 1


@pytest.mark.parametrize("ago_s", [1, 5, 10, 60])
def test_an_earlier_time_gives_no_moves_back(ago_s):
    budget = MoveBudget()
    taken(budget, NOW)
    budget.roll(NOW - ago_s)
    assert taken(budget, NOW - ago_s) == 0
    assert taken(budget, NOW) == 0


def test_requests_count_though_nobody_has_looked_since():
    budget = MoveBudget()
    for _ in range(100):
        budget.note_request()
    assert taken(budget, NOW) == 20


def test_a_look_changes_nothing_but_the_time():
    budget = after_requests(100)
    for _ in range(50):
        budget.roll(NOW + 3)
    assert taken(budget, NOW + 3) == 20


@given(
    st.lists(
        st.tuples(st.sampled_from(["request", "request", "take"]), st.floats(0, 3)), max_size=300
    )
)
def test_no_ten_seconds_see_more_moves_than_the_budget_of_what_came_by_then(steps):
    """A window of whole seconds: what is counted lies within the last ten of them."""
    budget, now = MoveBudget(), NOW
    requests: deque[int] = deque()
    moves: deque[int] = deque()
    for step, passed_s in steps:
        now += passed_s
        for times in (requests, moves):
            while times and times[0] <= int(now) - 10:
                times.popleft()
        if step == "request":
            budget.note_request()
            budget.roll(now)
            requests.append(int(now))
        else:
            within = len(moves) < max(10, 0.2 * len(requests))
            assert budget.take(now) is within
            if within:
                moves.append(int(now))
