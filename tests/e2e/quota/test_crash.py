"""`kill -9` under load, again and again on the same state: what is missing is the last second's."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.quota.books import BookkeepingEngine
from e2e.quota.organization import log_lines, organization, used, windows
from e2e.quota.streams import read_stream
from support.daemon import Daemon, service
from support.http import chat

KILLS = int(os.environ.get("QUOTA_KILLS", "4"))
LOST_S = 1.0
STREAMS = 40
LIFE_S = (1.6, 2.6)


def stream_body(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """Some streams are over in a moment and settled, some outlive the router."""
    length = dice.choice((5, 50, 900))
    plan = {"name": "", "length": length, "pace_s": dice.uniform(0.005, 0.02)}
    return "/v1/chat/completions", chat("tiny", stream=True, max_tokens=length, plan=plan)


class Life:
    """One daemon and the clients that keep it busy, until it is killed."""

    def __init__(self, router: Daemon, dice: random.Random) -> None:
        self._router = router
        self._dice = dice
        self._clients = [asyncio.create_task(self._client()) for _ in range(STREAMS)]

    async def _client(self) -> None:
        while self._router.exit_status is None:
            try:
                await read_stream(self._router.port, *stream_body(self._dice), None)
            except (OSError, EOFError, AssertionError):
                if self._router.exit_status is None:
                    raise

    async def end(self) -> float:
        """Kill it under load; when that was."""
        await asyncio.sleep(self._dice.uniform(*LIFE_S))
        assert not [client for client in self._clients if client.done()]
        killed = time.monotonic()
        self._router.kill()
        await asyncio.gather(*self._clients, return_exceptions=True)
        return killed


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_a_kill_under_load_loses_at_most_the_last_second(
    tmp_path: Path, stack: ExitStack, finding
):
    dice = random.Random(11)
    lost: list[float] = []
    async with BookkeepingEngine() as engine:
        config = {
            "organizations": [organization(daily_tokens=1_000_000_000)],
            "services": [service("engine", engine.url, "tiny")],
        }

        def start() -> Daemon:
            router = Daemon(tmp_path, config)
            stack.callback(router.kill)
            return router.__enter__()

        router = await asyncio.to_thread(start)
        for number in range(KILLS):
            before = await asyncio.to_thread(used, router)
            born = engine.told_by(time.monotonic())
            killed = await Life(router, dice).end()
            router = await asyncio.to_thread(start)
            state = await asyncio.to_thread(windows, router)
            saved = state["tokens", "day"]["used"] - before
            told = engine.told_by(killed) - born
            missing_since = _moment(engine, born + saved, killed)
            lost.append(killed - missing_since)
            assert saved <= told, f"kill {number}: charged more than was told"
            assert saved >= engine.told_by(killed - LOST_S) - born, (number, lost)
            assert all(row["reserved"] == 0 for row in state.values())
        assert await asyncio.to_thread(log_lines, router, "ledger_recovered")
    finding(
        f"kill -9, {KILLS} times: tokens of the last {max(lost):.2f} s missing at most,"
        f" {sum(lost) / len(lost):.2f} s on average"
    )


def _moment(engine: BookkeepingEngine, tokens: int, latest: float) -> float:
    """When the engine had told so many tokens in all."""
    early, late = latest - 60, latest
    for _ in range(40):
        middle = (early + late) / 2
        early, late = (middle, late) if engine.told_by(middle) <= tokens else (early, middle)
    return early
