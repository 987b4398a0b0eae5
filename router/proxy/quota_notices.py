"""Tells people that a quota is used up or held: once in ten minutes, whatever it refuses."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.errors import InsufficientQuota, RouterError
from router.events import EventLog, Severity

_QUIET_S = 600.0
_MOST = 1024


class QuotaNotices:
    """Folds the refusals of an organization that have one reason into one event in ten minutes.

    Args:
        events: is told.
        clock: monotonic seconds.
    """

    def __init__(self, events: EventLog, clock: Callable[[], float] = monotonic) -> None:
        self._events = events
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    def note(self, organization: str, error: RouterError) -> None:
        """A request of `organization` was refused with `error`; only quotas are news."""
        if not isinstance(error, InsufficientQuota):
            return
        now = self._clock()
        what, _, _ = error.message.partition(": ")  # the rest is of this one request
        reason = (organization, what)
        told = self._told.get(reason)
        if told is not None and now - told < _QUIET_S:
            return
        self._told.pop(reason, None)
        while len(self._told) >= _MOST:
            del self._told[next(iter(self._told))]
        self._told[reason] = now
        self._events.add("quota", organization, f"was refused: {what}", Severity.WARNING)
