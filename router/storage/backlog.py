"""What waits for the writer thread: bounded, rows coalesced by key, calls in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Value = str | int | float | None
Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Value]]


class BacklogFull(Exception):
    """The disk has been away for so long that no more may be kept in memory."""


@dataclass(slots=True, eq=False)
class Call:
    """Statements that belong together, and where their rows go."""

    statements: tuple[Statement, ...]
    future: Future[list[list[Row]]] = field(default_factory=Future)
    started: bool = False

    def start(self) -> bool:
        """Whether it is to be run: false when its caller has given it up."""
        if not self.started:
            self.started = self.future.set_running_or_notify_cancel()
        return self.started


@dataclass(slots=True)
class Batch:
    """What one transaction takes.

    Attributes:
        since: `time.monotonic()` of the oldest write in it.
        rows: by upsert statement, then by key.
        calls: in the order in which they were made.
    """

    since: float
    rows: dict[str, dict[Hashable, Sequence[Value]]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.calls) + sum(map(len, self.rows.values()))


class Backlog:
    """A queue between any number of threads that write and the one that commits.

    Args:
        capacity: most rows and calls to keep, those being committed included.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting = Batch(time.monotonic())
        self._taken: Batch | None = None
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._size()

    def put(self, statement: str, rows: Mapping[Hashable, Sequence[Value]]) -> None:
        """Add rows for an upsert; a row of the same key that still waits is replaced.

        Raises:
            BacklogFull: nothing was added; hand the rows over again later.
        """
        with self._changed:
            known = self._waiting.rows.get(statement, {})
            self._admit(len(rows.keys() - known.keys()))
            self._waiting.rows.setdefault(statement, {}).update(rows)
            self._changed.notify()

    def call(self, call: Call) -> None:
        """Add statements that are to run as one.

        Raises:
            BacklogFull: nothing was added.
        """
        with self._changed:
            self._admit(1)
            self._waiting.calls.append(call)
            self._changed.notify()

    def take(self) -> Batch | None:
        """Everything that waits, as soon as there is something; None when closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            self._taken, self._waiting = self._waiting, Batch(time.monotonic())
            return self._taken

    def done(self) -> None:
        """What was taken is on disk."""
        with self._changed:
            self._taken = None

    def put_back(self) -> None:
        """What was taken could not be written: it waits again, before what came since."""
        with self._changed:
            taken, self._taken = self._taken, None
            if taken is None:
                return
            for statement, rows in self._waiting.rows.items():
                taken.rows.setdefault(statement, {}).update(rows)
            taken.calls.extend(self._waiting.calls)
            self._waiting = taken

    def close(self) -> None:
        """Take nothing new; `take` gives out what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def has_rows(self) -> bool:
        """Whether any row that was `put` is not on disk."""
        with self._changed:
            batches = (self._waiting, self._taken)
            return any(any(batch.rows.values()) for batch in batches if batch is not None)

    def lag_s(self) -> float:
        """Age of the oldest write that is not on disk, 0 without one."""
        with self._changed:
            oldest = self._taken or self._waiting
            return time.monotonic() - oldest.since if oldest else 0.0

    def _size(self) -> int:
        return len(self._waiting) + (len(self._taken) if self._taken else 0)

    def _admit(self, more: int) -> None:
        if self._closed:
            raise BacklogFull("the state database is closed")
        if self._size() + more > self._capacity:
            raise BacklogFull(f"{self._capacity} writes already wait for the state database")
        if not self._waiting:
            self._waiting.since = time.monotonic()
