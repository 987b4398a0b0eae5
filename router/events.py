"""What happened lately, for people: a short list in memory that the dashboard shows.

Metrics count and the log tells all; this is what an operator who looks once should have seen.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

_KEPT = 500


class Severity(enum.StrEnum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        number: counts up from 1, without gaps.
        at: seconds since the epoch.
        kind: `service`, `reload`, `discovery`, `quota`, `daemon`.
        severity: how much it matters.
        subject: what it happened to: a service, an organization, a file.
        text: one sentence for people, without secrets and without content of requests.
    """

    number: int
    at: float
    kind: str
    severity: Severity
    subject: str
    text: str


class EventLog:
    """The last events. One owner, many writers, all on the event loop.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._count = 0

    def add(self, kind: str, subject: str, text: str, severity: Severity = Severity.INFO) -> None:
        """Note that something happened now; `kind` is one of `Event.kind`."""
        self._count += 1
        self._events.append(Event(self._count, self._clock(), kind, severity, subject, text))

    def since(self, number: int) -> Iterator[Event]:
        """Those after the event `number` (0: all that are kept), oldest first."""
        return (event for event in self._events if event.number > number)

    @property
    def count(self) -> int:
        """Number of the latest event; 0 before the first."""
        return self._count
