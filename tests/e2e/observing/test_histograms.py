"""The histograms against the clocks of the clients that they are about.

STREAMS=2000 asks for more of them.
"""

from __future__ import annotations

import asyncio
import os
import re
from bisect import bisect_left
from pathlib import Path

import pytest

from e2e.observing.load import Seen, ask, crowd
from router.metrics import SECONDS
from support.daemon import Daemon, Engine, service

STREAMS = int(os.environ.get("STREAMS", "400"))
AT_ONCE = 40
QUANTILES = (0.5, 0.9, 0.99)


def buckets(router: Daemon, name: str) -> list[int]:
    """Counts by bucket of a histogram, +Inf last."""
    text = router.get("/metrics").body.decode()
    rows = re.findall(rf'^{name}_bucket\{{[^}}]*le="([^"]+)"[^}}]*\}} (\S+)', text, re.MULTILINE)
    counts = [int(float(count)) for _, count in rows]
    return [count - below for count, below in zip(counts, [0, *counts], strict=False)]


def bucket_of_quantile(counts: list[int], quantile: float) -> int:
    """Place of the bucket in which a quantile lies."""
    rank, running = quantile * sum(counts), 0
    for place, count in enumerate(counts):
        running += count
        if running >= rank:
            return place
    raise AssertionError("an empty histogram has no quantiles")


def bucket_of_true_quantile(values: list[float], quantile: float) -> int:
    values = sorted(values)
    return bisect_left(SECONDS, values[min(len(values) - 1, int(quantile * len(values)))])


@pytest.fixture
async def streamed(start_daemon, tmp_path: Path) -> tuple[Daemon, list[Seen]]:
    """So many streams through a router, and what their clients saw."""
    speed = ("--decode-tokens-per-s", "60", "--max-num-seqs", "64")
    with Engine(tmp_path / "engine", "m", *speed) as engine:
        config = {
            "limits": {"per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
            "services": [service("a", engine.url, "m")],
        }
        router = await asyncio.to_thread(start_daemon, config)
        await asyncio.to_thread(router.until, lambda: router.healthy_count() == 1, "healthy")
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        body |= {"stream": True, "max_tokens": 12}
        seen = await crowd(STREAMS, AT_ONCE, lambda n: ask(router.port, f"s-{n}", "", body))
        await asyncio.to_thread(router.until_idle)
        return router, seen


async def test_quantiles_of_the_router_and_of_its_clients_are_within_one_bucket(streamed, finding):
    router, seen = streamed
    truths = {
        "router_time_to_first_token_seconds": [each.first_s for each in seen],
        "router_inter_token_latency_seconds": [gap for each in seen for gap in each.gaps_s],
    }
    for name, truth in truths.items():
        counts = await asyncio.to_thread(buckets, router, name)
        assert sum(counts) >= len(seen)
        for quantile in QUANTILES:
            told = bucket_of_quantile(counts, quantile)
            true = bucket_of_true_quantile(truth, quantile)
            finding(f"{name} p{quantile * 100:g}: bucket {told}, the clients' {true}")
            assert abs(told - true) <= 1, (name, quantile)
