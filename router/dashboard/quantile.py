"""Quantiles from the buckets of a histogram, as Prometheus' `histogram_quantile` has them."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which `share` of the observations lie, linear within its bucket.

    Args:
        bounds: upper bounds of the buckets, rising, without the infinite one.
        counts: of each bucket, the infinite one last; not cumulative.
        share: 0 to 1.

    Returns:
        In the bounds' unit; None without observations. What lies above the last bound is told as
        the last bound.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank = share * total
    below = 0.0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below += count
        lower = bound
    return bounds[-1]
