"""The rate of a client address: what it lets pass, for how long it refuses, what it costs."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.limits.address import parse
from router.limits.rate import RateLimiter, key_of

CLIENT = key_of(ip_address("192.0.2.1"))
OTHER = key_of(ip_address("192.0.2.2"))
START = 1_000.0

rates = st.sampled_from([0.01, 0.5, 1.0, 3.0, 7.7, 50.0, 1_000.0, 1_000_000.0])
bursts = st.integers(1, 200)


def allowed(limiter: RateLimiter, key: int, count: int, now: float) -> int:
    return sum(limiter.check(key, now) is None for _ in range(count))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_burst_passes_and_not_one_more() -> None:
    assert allowed(RateLimiter(50, 100), CLIENT, 300, START) == 100


def test_the_wait_that_is_told_is_enough_and_not_too_long() -> None:
    limiter = RateLimiter(2, 3)
    allowed(limiter, CLIENT, 3, START)
    wait = limiter.check(CLIENT, START)
    assert wait is not None
    assert 0.49 < wait <= 0.5
    assert limiter.check(CLIENT, START + wait - 0.01) is not None
    assert limiter.check(CLIENT, START + wait) is None


def test_a_refused_request_costs_nothing() -> None:
    """A client that goes on trying is let in as early as one that waits."""
    limiter = RateLimiter(1, 1)
    limiter.check(CLIENT, START)
    allowed(limiter, CLIENT, 1_000, START + 0.5)
    assert limiter.check(CLIENT, START + 1) is None


def test_a_rest_fills_the_bucket_again_but_not_above_the_burst() -> None:
    limiter = RateLimiter(10, 5)
    assert allowed(limiter, CLIENT, 9, START) == 5
    assert allowed(limiter, CLIENT, 9, START + 0.2) == 2
    assert allowed(limiter, CLIENT, 9, START + 1_000) == 5


def test_clients_do_not_share_a_bucket() -> None:
    limiter = RateLimiter(1, 1)
    limiter.check(CLIENT, START)
    assert limiter.check(OTHER, START) is None


@given(rate=rates, burst=bursts, gaps=st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_no_interval_passes_more_than_burst_and_rate_allow(
    rate: float, burst: int, gaps: list[float]
) -> None:
    """Gaps are in units of the time between two requests at the rate."""
    limiter, now, passed = RateLimiter(rate, burst, max_entries=8), START, []
    for gap in gaps:
        now += gap / rate
        if limiter.check(CLIENT, now) is None:
            passed.append(now)
    for index, begin in enumerate(passed):
        for count, end in enumerate(passed[index:], start=1):
            assert count <= burst + rate * (end - begin) + 0.01


@given(rate=rates, burst=bursts, gaps=st.lists(st.floats(1, 5), min_size=1, max_size=200))
def test_a_client_that_keeps_to_the_rate_is_never_refused(
    rate: float, burst: int, gaps: list[float]
) -> None:
    limiter, now = RateLimiter(rate, burst, max_entries=8), START
    for gap in gaps:
        now += gap / rate
        assert limiter.check(CLIENT, now) is None


@given(rate=rates, burst=st.integers(2, 200), gap=st.floats(0, 1))
def test_after_a_refusal_the_wait_that_is_told_always_lets_one_in(
    rate: float, burst: int, gap: float
) -> None:
    limiter = RateLimiter(rate, burst)
    now = START + gap / rate
    allowed(limiter, CLIENT, burst, START)
    wait = limiter.check(CLIENT, now)
    if wait is not None:
        assert limiter.check(CLIENT, now + wait + 1e-9) is None


def test_a_new_rate_holds_from_the_next_request_on() -> None:
    limiter = RateLimiter(1, 100)
    limiter.configure(1, 10)
    assert allowed(limiter, CLIENT, 50, START) == 10


def test_what_an_old_slow_rate_held_against_a_client_is_forgotten_by_a_faster_one() -> None:
    """100 requests of 0.01 a second are 10,000 s of debt; at 50 a second nobody owes so much."""
    limiter = RateLimiter(0.01, 100)
    allowed(limiter, CLIENT, 100, START)
    limiter.configure(50, 100)
    wait = limiter.check(CLIENT, START)
    assert wait is not None
    assert wait <= 1 / 50


def test_the_one_nearest_to_a_full_bucket_is_forgotten_first() -> None:
    """Who is refused stays refused, however many others come once each."""
    limiter = RateLimiter(1, 100, max_entries=8)
    allowed(limiter, CLIENT, 200, START)
    for key in range(10_000, 12_000):
        limiter.check(key, START + 0.1)
    assert limiter.check(CLIENT, START + 0.2) is not None


def test_a_million_addresses_cost_less_than_50_mib(finding: Callable[[str], None]) -> None:
    """Resident memory of the process, measured around it all."""
    before = resident_bytes()
    limiter = RateLimiter(50, 100)
    size = limiter.memory_bytes
    for number in range(1_000_000):
        limiter.check(number * 2_654_435_761 % 2**32, START + number * 1e-6)
    grown = resident_bytes() - before
    assert limiter.memory_bytes == size
    assert grown < 50 * 2**20
    finding(f"1,000,000 client addresses: {grown / 2**20:.1f} MiB resident")


@pytest.mark.parametrize("entries", [0, 1, 7, 8, 1_000])
def test_a_table_holds_at_least_what_it_is_asked_to(entries: int) -> None:
    limiter = RateLimiter(1, 1, max_entries=entries)
    assert limiter.memory_bytes >= entries * 16
    assert limiter.check(2**64 - 1, START) is None


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "::c000:201", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_64_of_ipv6(one: str, another: str, same: bool) -> None:
    assert (key_of(parse(one)) == key_of(parse(another))) is same
    assert (key_of(ip_address(one)) == key_of(ip_address(another))) is same


def test_whoever_has_no_address_is_one_client() -> None:
    limiter = RateLimiter(1, 1)
    assert limiter.check(key_of(None), START) is None
    assert limiter.check(key_of(None), START) is not None
