"""Sums over the last minute."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.metrics import RollingMinute

NOTHING = {"response_time": 0.0, "ttft": 0.0, "tokens_per_second": 0.0}


def minute(*rows) -> RollingMinute:
    """Of (ended, duration, time to first byte or None, tokens)."""
    rolling = RollingMinute()
    for now, duration_s, first_s, tokens in rows:
        rolling.add(
            now,
            count=1,
            duration_s=duration_s,
            first_count=int(first_s is not None),
            first_s=first_s or 0.0,
            tokens=tokens,
        )
    return rolling


@pytest.mark.parametrize("now", [0.0, 5.0, 1e9])
def test_without_requests_everything_is_zero(now):
    assert RollingMinute().means(now) == NOTHING


def test_means_are_over_requests():
    means = minute((100, 2.0, 0.5, 10), (101, 4.0, 1.5, 20)).means(102)
    assert means == {"response_time": 3.0, "ttft": 1.0, "tokens_per_second": 0.5}


def test_many_requests_at_once_count_as_one_by_one():
    many = RollingMinute()
    many.add(100, count=3, duration_s=9.0, first_count=2, first_s=1.0, tokens=30)
    one_by_one = minute((100, 2.0, 0.25, 10), (100, 3.0, 0.75, 10), (100, 4.0, None, 10))
    assert many.means(101) == one_by_one.means(101)


def test_a_request_without_a_first_byte_does_not_count_for_the_time_to_it():
    assert minute((100, 2.0, 0.5, 0), (100, 9.0, None, 0)).means(100)["ttft"] == 0.5


@pytest.mark.parametrize(("age", "counts"), [(0, True), (49, True), (60, False), (1e6, False)])
def test_a_request_counts_for_a_minute(age, counts):
    assert (minute((1005, 1.0, 1.0, 60)).means(1005 + age) != NOTHING) is counts


def test_a_slot_that_is_used_again_forgets_what_was_in_it():
    assert minute((1000, 9.0, 9.0, 900), (1060, 1.0, 1.0, 60)).means(1060)["response_time"] == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 300), st.integers(0, 99)), max_size=30))
def test_tokens_are_never_counted_twice_nor_longer_than_a_minute(rows):
    rows.sort()
    rolling = minute(*((1000 + at, 0.0, None, tokens) for at, tokens in rows))
    now = 1000 + (rows[-1][0] if rows else 0)
    rate = rolling.means(now)["tokens_per_second"]
    recent = sum(tokens for at, tokens in rows if now - 1000 - at < 50)
    possible = sum(tokens for at, tokens in rows if now - 1000 - at < 60)
    assert recent - 1e-6 <= rate * 60 <= possible + 1e-6
