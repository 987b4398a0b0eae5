"""What the ledger charges, against what two real vLLM engines say that they have generated."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import pytest

from e2e.quota.organization import organization, until_settled, used
from e2e.quota.streams import read_stream
from support.daemon import METRIC, service
from support.http import call

pytestmark = pytest.mark.real_vllm

STREAMS = 200
LENGTHS = (400, 460)
DIFFERENCE = 0.01
REAL_KEY = "backend-secret"
METRICS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:num_requests_running")


def engine_counts(urls: list[str]) -> dict[str, float]:
    """The engines' own metrics, summed."""
    total = dict.fromkeys(METRICS, 0.0)
    for url in urls:
        text = call(int(url.rsplit(":", 1)[1]), "GET", "/metrics").body.decode()
        for sample in METRIC.finditer(text):
            if sample["name"] in total:
                total[sample["name"]] += float(sample["value"])
    return total


def quiet_counts(urls: list[str], timeout: float = 20) -> dict[str, float]:
    """The same once the engines run nothing and two readings are alike."""
    deadline = time.monotonic() + timeout
    last: dict[str, float] = {}
    while time.monotonic() < deadline:
        now = engine_counts(urls)
        if now == last and not now["vllm:num_requests_running"]:
            return now
        last = now
        time.sleep(0.3)
    raise AssertionError(f"the engines do not come to rest: {last}")


def request(dice: random.Random, length: int) -> tuple[str, dict[str, Any]]:
    """A chat or completions stream of exactly so many tokens, if it is not left."""
    text = " ".join(dice.choices(("network", "license", "program", "copy"), k=dice.randint(1, 8)))
    body: dict[str, Any] = {"model": "tiny", "stream": True, "max_tokens": length}
    body |= {"ignore_eos": True, "temperature": 1.0, "seed": dice.randrange(1 << 30)}
    if dice.random() < 0.5:
        return "/v1/completions", {**body, "prompt": text}
    return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}


async def test_the_ledger_charges_what_the_engines_generated_also_for_aborted_streams(
    start_daemon, finding
):
    urls = os.environ["VLLM_URLS"].split(",")
    dice = random.Random(7)
    config = {
        "organizations": [organization(daily_tokens=10_000_000)],
        "services": [service(f"e{n}", url, api_key=REAL_KEY) for n, url in enumerate(urls)],
    }
    router = await asyncio.to_thread(start_daemon, config)
    before = await asyncio.to_thread(quiet_counts, urls)
    clients = []
    for number in range(STREAMS):
        length = dice.randint(*LENGTHS)
        leave_after = dice.randint(1, length) if number % 2 else None
        clients.append(read_stream(router.port, *request(dice, length), leave_after))
    await asyncio.gather(*clients)
    await asyncio.to_thread(until_settled, router)
    after = await asyncio.to_thread(quiet_counts, urls)
    generated, prompts, _ = (after[name] - before[name] for name in METRICS)
    charged = await asyncio.to_thread(used, router)
    prompt = await asyncio.to_thread(router.metric, "router_tokens_total", kind="prompt")
    completion = charged - prompt
    difference = (generated - completion) / generated
    finding(
        f"real vLLM: {generated:.0f} tokens generated, {completion:.0f} charged"
        f" ({difference:+.2%}); prompts {prompts:.0f}, charged {prompt:.0f}"
    )
    assert abs(prompts - prompt) <= DIFFERENCE * prompts
    assert abs(difference) <= DIFFERENCE
