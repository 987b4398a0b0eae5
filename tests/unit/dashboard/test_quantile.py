"""Quantiles from buckets."""

from __future__ import annotations

import pytest

from router.dashboard.quantile import quantile

BOUNDS = (1.0, 2.0, 4.0)


def test_without_observations_there_is_none():
    assert quantile(BOUNDS, (0, 0, 0, 0), 0.5) is None


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ((10, 0, 0, 0), 0.5, 0.5),
        ((0, 10, 0, 0), 0.5, 1.5),
        ((5, 5, 0, 0), 0.5, 1.0),
        ((5, 0, 5, 0), 0.75, 3.0),
        ((1, 1, 1, 1), 1.0, 4.0),
        ((0, 0, 0, 9), 0.5, 4.0),
        ((0, 1, 0, 0), 0.0, 1.0),
    ],
)
def test_it_is_linear_within_a_bucket(counts, share, value):
    assert quantile(BOUNDS, counts, share) == pytest.approx(value)
