"""What goes into a ledger and comes out of it: small values that never change."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from router.ledger.windows import Period


class Kind(enum.StrEnum):
    """What is counted."""

    TOKENS = "tokens"
    REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an organization may use; None: as much as it likes, which is counted all the same."""

    daily_tokens: int | None = None
    monthly_tokens: int | None = None
    daily_requests: int | None = None


class WindowUsage(NamedTuple):
    """One window of an organization, at one moment.

    Attributes:
        kind: what is counted.
        period: for how long.
        limit: the most that may be used; None: no limit.
        used: what is settled.
        reserved: what open reservations hold beyond that.
        remaining: what a new request may take; None: no limit.
        resets_at: when the window ends, in seconds since the epoch.
    """

    kind: Kind
    period: Period
    limit: int | None
    used: int
    reserved: int
    remaining: int | None
    resets_at: int


class Tightest(NamedTuple):
    """The window of each kind with the least left; None where none of that kind has a limit."""

    tokens: WindowUsage | None
    requests: WindowUsage | None


_HELD_RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was reserved: of the windows without room, the one that ends last.

    Windows that are used up come before those that running requests hold: only waiting for their
    end would help.

    Attributes:
        kind: what there is too little of.
        period: in which window.
        limit: that window's limit.
        used: what is settled in it.
        reserved: what open reservations hold of it.
        requested: the least that this request would have had to take.
        resets_at: when the window ends, in seconds since the epoch.
    """

    kind: Kind
    period: Period
    limit: int
    used: int
    reserved: int
    requested: int
    resets_at: int

    @property
    def is_held(self) -> bool:
        """There may be room as soon as running requests have ended."""
        return self.used + self.requested <= self.limit

    def retry_after_s(self, now: float) -> float:
        """Seconds until the window ends; where it is only held, until one may try again."""
        left = max(0.0, self.resets_at - now)
        return min(_HELD_RETRY_AFTER_S, left) if self.is_held else left
