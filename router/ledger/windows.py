"""UTC calendar windows, in whole seconds since the epoch."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime

_DAY_S = 86_400


class Period(enum.StrEnum):
    """How long a window is."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` until just before `end`, both in seconds since the epoch."""

    period: Period
    start: int
    end: int


def day_of(now: float) -> Window:
    """The UTC day of a time."""
    start = int(now // _DAY_S) * _DAY_S
    return Window(Period.DAY, start, start + _DAY_S)


def month_of(now: float) -> Window:
    """The UTC calendar month of a time."""
    moment = datetime.fromtimestamp(now, UTC)
    year, month = divmod(moment.year * 12 + moment.month, 12)
    first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    following = datetime(year, month + 1, 1, tzinfo=UTC)
    return Window(Period.MONTH, int(first.timestamp()), int(following.timestamp()))
