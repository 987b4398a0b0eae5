"""How often an address may knock: whose address counts, what counts, and what it costs to know."""

from __future__ import annotations

import subprocess
import sys

import pytest

from e2e.quota.organization import ACME_KEY, organization
from support.daemon import Daemon, service
from support.http import Response, call, chat
from support.upstream import ScriptedUpstream

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
BURST = 4
ADDRESSES, MEMORY = 1_000_000, 50 * 1024 * 1024
MEASURE = """
import resource
from router.limits.rate import RateLimiter
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
limiter = RateLimiter(50, 100)
for address in range({addresses}):
    limiter.check(address * 2654435761 % 2**32, address / 1e5)
print(resident() - before)
"""


@pytest.fixture
def start_limited(start_daemon, start_upstream):
    """A daemon that takes four requests of an address and then one in a hundred seconds."""

    def start(**server: object) -> tuple[Daemon, ScriptedUpstream]:
        upstream = start_upstream()
        config = {
            "server": server,
            "limits": {"per_ip": {"requests_per_second": 0.01, "burst": BURST}},
            "organizations": [organization()],
            "services": [service("engine", upstream.url, "tiny")],
        }
        return start_daemon(config), upstream

    return start


def knock(router: Daemon, path: str = CHAT, *forwarded_for: str, key: str = ACME_KEY) -> Response:
    """One request, with as many `X-Forwarded-For` lines as are given."""
    headers = [("authorization", f"Bearer {key}")]
    headers += [("x-forwarded-for", value) for value in forwarded_for]
    if path.startswith(MODELS):
        return call(router.port, "GET", path, None, tuple(headers))
    return call(router.port, "POST", path, chat(), tuple(headers))


def passed(router: Daemon, lines: list[tuple[str, ...]]) -> list[bool]:
    return [knock(router, CHAT, *each).status == 200 for each in lines]


def test_a_burst_passes_and_what_follows_is_told_when_to_come_again(start_limited):
    router, upstream = start_limited()
    answers = [knock(router) for _ in range(BURST + 2)]
    assert [a.status for a in answers] == [200] * BURST + [429] * 2
    error = answers[-1].error
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 90 <= int(answers[-1].header("retry-after")) <= 200
    assert len(upstream.requests) == BURST
    anthropic = knock(router, "/v1/messages").json
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "rate_limit_error")


def test_a_spoofed_address_buys_nothing(start_limited):
    router, _ = start_limited()
    lines = [(f"203.0.113.{n}",) for n in range(10)]
    assert passed(router, lines) == [True] * BURST + [False] * (10 - BURST)


@pytest.mark.parametrize(
    "chain",
    [
        "198.51.100.{n}, 203.0.113.7",
        "198.51.100.{n}, 203.0.113.7, 10.1.2.3",
        "127.0.0.{n}, 203.0.113.7, 10.1.2.3, 127.0.0.1",
        "nonsense{n}, 203.0.113.7",
    ],
)
def test_behind_a_trusted_proxy_the_right_most_untrusted_address_counts(start_limited, chain):
    router, _ = start_limited(trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    lines = [(chain.format(n=n),) for n in range(1, 8)]
    assert passed(router, lines) == [True] * BURST + [False] * (7 - BURST)
    assert passed(router, [("203.0.113.8",)]) == [True]


def test_a_header_line_that_the_client_wrote_before_the_proxys_own_buys_nothing(start_limited):
    """Some proxies add a line of their own instead of appending to the client's."""
    router, _ = start_limited(trusted_proxies=["127.0.0.0/8"])
    lines = [(f"198.51.100.{n}", "203.0.113.7") for n in range(1, 8)]
    assert passed(router, lines) == [True] * BURST + [False] * (7 - BURST)


def test_a_network_of_ipv6_is_one_client(start_limited):
    router, _ = start_limited(trusted_proxies=["127.0.0.0/8"])
    lines = [(f"2001:db8:1:2::{n:x}",) for n in range(1, 8)]
    assert passed(router, lines) == [True] * BURST + [False] * (7 - BURST)
    assert passed(router, [("2001:db8:1:3::1",)]) == [True]


def test_status_pages_are_not_counted(start_limited):
    router, _ = start_limited()
    pages = ("/health", "/health/live", "/health/ready", "/services", "/stats", "/metrics")
    assert {router.get(page).status for page in pages * 3} == {200}
    assert knock(router).status == 200


@pytest.mark.parametrize("path", [MODELS, f"{MODELS}/tiny", CHAT, "/v1/embeddings", "/tokenize"])
def test_the_model_list_and_inference_share_one_bucket(start_limited, path):
    router, _ = start_limited()
    for number in range(BURST):
        assert knock(router, MODELS if number % 2 else path).status == 200
    assert {knock(router, each).status for each in (path, MODELS)} == {429}


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("POST", MODELS)])
def test_wrong_methods_are_counted_where_right_ones_are(start_limited, method, path):
    router, _ = start_limited()
    answers = [call(router.port, method, path).status for _ in range(BURST + 2)]
    assert answers == [405] * BURST + [429] * 2


def test_who_tries_keys_is_slowed_down_like_everybody(start_limited):
    router, _ = start_limited()
    answers = [knock(router, key=f"sk-guess-{n}").status for n in range(BURST + 2)]
    assert answers == [401] * BURST + [429] * 2


@pytest.mark.parametrize(
    "lines", [("203.0.113.7",), ("127.0.0.1, 203.0.113.7",), ("127.0.0.1", "203.0.113.7")]
)
def test_who_only_says_that_it_is_loopback_does_not_see_the_status_pages(start_limited, lines):
    router, _ = start_limited(trusted_proxies=["127.0.0.0/8"])
    headers = tuple(("x-forwarded-for", value) for value in lines)
    for page in ("/services", "/stats", "/metrics"):
        assert call(router.port, "GET", page, None, headers).status == 401


def test_a_million_addresses_cost_less_than_fifty_mebibytes(finding):
    code = MEASURE.format(addresses=ADDRESSES)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    grown = int(run.stdout)
    finding(f"rate of {ADDRESSES} distinct addresses: {grown / 2**20:.1f} MiB")
    assert grown < MEMORY
