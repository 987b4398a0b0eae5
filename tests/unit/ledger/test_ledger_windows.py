"""Calendar windows, UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ledger import Period, Window, day_of, month_of


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "first", "following"),
    [
        ("2026-01-15T10:30:00.5", "2026-01-15", "2026-01-16"),
        ("2026-12-31T23:59:59.999", "2026-12-31", "2027-01-01"),
        ("2027-01-01T00:00:00", "2027-01-01", "2027-01-02"),
        ("2028-02-28T12:00:00", "2028-02-28", "2028-02-29"),
    ],
)
def test_a_day(moment: str, first: str, following: str) -> None:
    """From midnight to midnight."""
    assert day_of(at(moment)) == Window(Period.DAY, int(at(first)), int(at(following)))


@pytest.mark.parametrize(
    ("moment", "first", "following"),
    [
        ("2026-01-15T10:30:00", "2026-01-01", "2026-02-01"),
        ("2026-11-30T23:59:59.999", "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:59:59.999", "2026-12-01", "2027-01-01"),
        ("2027-01-01T00:00:00", "2027-01-01", "2027-02-01"),
        ("2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_month(moment: str, first: str, following: str) -> None:
    """From the first to the first, over year ends and leap days."""
    assert month_of(at(moment)) == Window(Period.MONTH, int(at(first)), int(at(following)))


@given(st.floats(0, 4_000_000_000))
def test_a_time_is_in_its_windows_and_a_month_is_whole_days(now: float) -> None:
    """Every moment has one day, that day one month, and both end with a day."""
    day, month = day_of(now), month_of(now)
    assert month.start <= day.start <= now < day.end <= month.end
    assert month_of(month.end).start == month.end
    assert (month.end - month.start) % 86_400 == 0
