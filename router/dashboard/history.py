"""The last fifteen minutes of every service, one point each five seconds: what sparklines show."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from router.dashboard.quantile import quantile

STEP_S = 5.0
POINTS = 180
_RATE_S = 15.0
_QUANTILE_POINTS = 36
_MOST = 256

Point = tuple[float | None, int | None, float | None, float | None]
"""Tokens a second, requests in flight, share of the KV cache in use, TTFT p95 in seconds."""
_ABSENT: Point = (None, None, None, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a service at one moment.

    Attributes:
        tokens: generated since some beginning.
        tokens_at: when that was so, monotonic seconds.
        in_flight: requests it holds.
        kv_cache: share of its KV cache in use; None where it does not tell.
        first_tokens: counts of the buckets of its times to first token, not cumulative.
        bounds: upper bounds of those buckets, seconds.
    """

    tokens: int
    tokens_at: float
    in_flight: int
    kv_cache: float | None
    first_tokens: Sequence[int]
    bounds: Sequence[float]


class Trail:
    """One service's last minutes."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS)
        self.absent = 0
        self.tokens_per_s: float | None = None
        self.ttft_p50: float | None = None
        self.ttft_p95: float | None = None
        self._tokens: deque[tuple[float, int]] = deque()
        self._first_tokens: deque[tuple[int, ...]] = deque(maxlen=_QUANTILE_POINTS + 1)

    def add(self, now: float, reading: Reading) -> None:
        """Take a reading at `now`, monotonic seconds."""
        self.absent = 0
        self.tokens_per_s = self._rate(now, reading)
        self._first_tokens.append(tuple(reading.first_tokens))
        recent = _difference(self._first_tokens[0], self._first_tokens[-1])
        self.ttft_p50 = quantile(reading.bounds, recent, 0.5)
        self.ttft_p95 = quantile(reading.bounds, recent, 0.95)
        self.points.append((self.tokens_per_s, reading.in_flight, reading.kv_cache, self.ttft_p95))

    def skip(self) -> None:
        """The service was not there."""
        self.absent += 1
        self.tokens_per_s = self.ttft_p50 = self.ttft_p95 = None
        self._tokens.clear()
        self._first_tokens.clear()
        self.points.append(_ABSENT)

    def _rate(self, now: float, reading: Reading) -> float | None:
        """Tokens a second over the last moments: an engine's counter is read at its own times."""
        tokens = self._tokens
        if tokens and reading.tokens < tokens[-1][1]:  # it has started anew
            tokens.clear()
        if not tokens or reading.tokens_at > tokens[-1][0]:
            tokens.append((reading.tokens_at, reading.tokens))
        while len(tokens) > 2 and tokens[1][0] < now - _RATE_S:
            tokens.popleft()
        (first_at, first), (last_at, last) = tokens[0], tokens[-1]
        if last_at <= first_at:
            return None
        if last_at < now - _RATE_S:
            return 0.0
        return (last - first) / (last_at - first_at)


class History:
    """The trails of all services, all as long: absent services have empty points."""

    def __init__(self) -> None:
        self._trails: dict[str, Trail] = {}
        self.length = 0
        self.number = 0

    def sample(self, now: float, readings: Mapping[str, Reading]) -> None:
        """Add a point for every service; `now` in monotonic seconds."""
        for name, reading in islice(readings.items(), _MOST):
            self._trail(name).add(now, reading)
        for name, trail in tuple(self._trails.items()):
            if name not in readings:
                trail.skip()
                if trail.absent >= POINTS:
                    del self._trails[name]
        self.length = min(POINTS, self.length + 1)
        self.number += 1

    def of(self, name: str) -> Trail | None:
        """The trail of a service; None where there is none yet."""
        return self._trails.get(name)

    def latest(self) -> Iterable[tuple[str, Point]]:
        """The last point of every service."""
        return ((name, trail.points[-1]) for name, trail in self._trails.items())

    def whole(self) -> Iterable[tuple[str, Sequence[Point]]]:
        """All points of every service, oldest first."""
        return ((name, tuple(trail.points)) for name, trail in self._trails.items())

    def _trail(self, name: str) -> Trail:
        trail = self._trails.get(name)
        if trail is None:
            while len(self._trails) >= _MOST:
                longest_gone = max(self._trails, key=lambda each: self._trails[each].absent)
                del self._trails[longest_gone]
            trail = self._trails[name] = Trail()
            trail.points.extend([_ABSENT] * self.length)
        return trail


def _difference(old: Sequence[int], new: Sequence[int]) -> list[int]:
    """What came between two looks at the counts of a histogram."""
    return [now - then for then, now in zip(old, new, strict=True)]
