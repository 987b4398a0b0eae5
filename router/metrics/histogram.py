"""A histogram as Prometheus means it, and the bounds of buckets that the router counts in."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cache
from math import inf

from router.exposition import bound_text

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip
"""Bucket bounds for what an engine takes: 1 ms to 10 min."""
FINE_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
)  # fmt: skip
"""Bucket bounds for what the router itself takes: 50 µs to 1 s."""


class Histogram:
    """Counts by bucket, and the sum; bounds are upper and inclusive, as in Prometheus."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the histogram's base unit."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: list[float]) -> None:
        """Count many values."""
        values.sort()
        below = 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound, below)
            self.counts[place] += upto - below
            below = upto
        self.counts[-1] += len(values) - below
        self.total += sum(values)

    def shape(self) -> list[tuple[str, int]]:
        """Its buckets, see `Family.add_histogram`."""
        return list(zip(_bound_texts(self.bounds), self.counts, strict=True))


@cache
def _bound_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(bound_text, bounds), bound_text(inf))
