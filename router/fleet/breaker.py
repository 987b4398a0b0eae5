"""Passive ejection: what real requests tell of a service. Pure decisions on a frozen value.

Closed, a service takes requests. After enough failures in a row it is open: ejected for a while
that doubles with every ejection in a row. Then one request is let through on trial, and its outcome
closes the breaker or opens it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_JITTER = 0.1
_MAX_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one service's breaker. Times are seconds of a monotonic clock.

    Attributes:
        failures: in a row.
        ejections: in a row, without a success in between.
        until: end of the present ejection or pause; 0.0 while closed.
        trial: the one request of a half-open breaker is under way.
        since: when the first of the failures in a row came.
    """

    failures: int = 0
    ejections: int = 0
    until: float = 0.0
    trial: bool = False
    since: float = 0.0

    @property
    def is_closed(self) -> bool:
        """Requests pass freely."""
        return self.until == 0.0

    def admits(self, now: float) -> bool:
        """Whether a request may pass: freely, or as the trial."""
        return self.until == 0.0 or (now >= self.until and not self.trial)


CLOSED = Breaker()


def after_take(breaker: Breaker) -> Breaker:
    """A request is given to the service: the trial, if the breaker is not closed."""
    return breaker if breaker.until == 0.0 else replace(breaker, trial=True)


def after_success(_breaker: Breaker) -> Breaker:
    """An answer began well."""
    return CLOSED


def after_nothing(breaker: Breaker) -> Breaker:
    """A request ended and told nothing (4xx, the client left): a trial is free again."""
    return replace(breaker, trial=False) if breaker.trial else breaker


def after_failure(
    breaker: Breaker,
    now: float,
    *,
    threshold: int,
    base_s: float,
    max_s: float,
    jitter: float,
) -> Breaker:
    """A request failed before its first byte.

    Args:
        breaker: before.
        now: the present time.
        threshold: failures in a row that eject.
        base_s: first time out.
        max_s: longest.
        jitter: -1 to 1, drawn by the caller, so that services do not come back as one.
    """
    failures = breaker.failures + 1
    since = breaker.since if breaker.failures else now
    if failures < threshold and not breaker.trial:
        return replace(breaker, failures=failures, since=since)
    if now < breaker.until and not breaker.trial:
        return replace(breaker, failures=failures)  # one that was under way when it was ejected
    out_s = min(max_s, base_s * 2.0 ** min(breaker.ejections, 32) * (1 + _JITTER * jitter))
    return Breaker(failures, breaker.ejections + 1, now + out_s, trial=False, since=since)


def paused(breaker: Breaker, now: float, wait_s: float) -> Breaker:
    """The engine asked to be left alone for `wait_s` (`Retry-After`), believed up to a minute."""
    until = now + min(wait_s, _MAX_PAUSE_S)
    return replace(breaker, until=max(breaker.until, until), trial=False)
