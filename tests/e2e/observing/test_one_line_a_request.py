"""One line for each request, whatever becomes of it, and tokens that equal the ledger's.

ACCESS_LOG_REQUESTS=10000 asks for more of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path

from e2e.observing.load import ask, crowd
from e2e.quota.organization import ACME_KEY, organization, until_settled, used
from support.daemon import Engine, service
from support.upstream import Send
from support.wire import chat_answer

REQUESTS = int(os.environ.get("ACCESS_LOG_REQUESTS", "1500"))
AT_ONCE = 64
KINDS = ("unary", "stream", "aborted", "silent", "model", "key", "json", "path", "too_long")


async def one(port: int, kind: str, number: int, dice: random.Random) -> None:
    name, key = f"{kind}-{number}", ACME_KEY
    body: object = {
        "model": "m",
        "messages": [{"role": "user", "content": "word " * dice.randint(1, 30)}],
        "max_tokens": dice.randint(1, 12),
        "stream": kind in {"stream", "aborted", "silent"},
    }
    path, leave_after = "/v1/chat/completions", -1
    if kind == "aborted":
        leave_after = dice.randint(1, 4)
    elif kind == "silent":
        leave_after = 0
    elif kind == "model":
        body = {"model": "none", "messages": []}
    elif kind == "key":
        key = "sk-wrong"
    elif kind == "json":
        body = b"{"
    elif kind == "path":
        path = "/v1/nowhere"
    elif kind == "too_long":
        body["max_tokens"] = 100_000  # type: ignore[index]
    await ask(port, name, key, body, path, leave_after)


async def test_every_request_has_one_line_and_the_lines_tokens_are_the_ledgers(
    start_daemon, tmp_path: Path, finding
):
    with Engine(tmp_path / "engine", "m", "--decode-tokens-per-s", "400") as engine:
        config = {
            "limits": {"per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
            "organizations": [organization(daily_tokens=10**9)],
            "services": [service("a", engine.url, "m", max_concurrency=48)],
        }
        router = await asyncio.to_thread(start_daemon, config)
        await asyncio.to_thread(router.until, lambda: router.healthy_count() == 1, "healthy")
        dice = random.Random(7)
        kinds = [dice.choice(KINDS) for _ in range(REQUESTS)]
        await crowd(REQUESTS, AT_ONCE, lambda n: one(router.port, kinds[n], n, dice))
        await asyncio.to_thread(router.until_idle)
        await asyncio.to_thread(until_settled, router)
        charged = await asyncio.to_thread(used, router)
        await asyncio.to_thread(router.terminate)
    lines = requests_told(router.log)
    times = Counter(line["id"] for line in lines if "-" in line["id"])
    asked = {f"{kind}-{number}" for number, kind in enumerate(kinds)}
    # Of a client that left before its request was read there is nothing to tell.
    missing = asked - times.keys()
    assert {name.partition("-")[0] for name in missing} <= {"silent"}
    assert not [name for name in asked & times.keys() if times[name] != 1]
    told = sum(line.get("prompt_tokens", 0) + line.get("completion_tokens", 0) for line in lines)
    outcomes = Counter(line["outcome"] for line in lines)
    finding(
        f"access log: {len(asked)} requests, {len(asked) - len(missing)} lines"
        f" ({len(missing)} clients left before their request was read),"
        f" {told} tokens told, {charged} charged; {dict(outcomes)}"
    )
    assert told == charged > 0
    assert {"whole", "client_gone", "refused"} <= outcomes.keys()


def requests_told(log: str) -> list[dict]:
    rows = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [row for row in rows if row.get("event") == "request"]


async def test_neither_key_nor_content_is_in_the_log(start_daemon, start_upstream):
    upstream = start_upstream(lambda _: [Send(chat_answer())])
    router = await asyncio.to_thread(
        start_daemon,
        {"organizations": [organization()], "services": [service("a", upstream.url, "m")]},
    )
    content = "the-secret-of-the-client"
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    await ask(router.port, "r-1", ACME_KEY, body)
    await asyncio.to_thread(router.terminate)
    assert '"id":"r-1"' in router.log
    assert ACME_KEY not in router.log
    assert content not in router.log


def test_it_can_be_turned_off(start_daemon, start_upstream):
    upstream = start_upstream(lambda _: [])
    config = {"services": [service("a", upstream.url, "m")]}
    router = start_daemon(config, options=["--no-access-log"])
    assert router.get("/v1/nowhere").status == 404
    router.terminate()
    assert requests_told(router.log) == []
