"""Brings engines, router and clients together, and looks at what is left when all have gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.chaos import acts, visits
from e2e.chaos.clients import Crowd, Got
from e2e.chaos.engines import Attempt, Engine, asked_of, rain
from e2e.chaos.oracle import Ending, Exchange, Violation, judge, judge_bad
from e2e.quota.organization import sha256
from support.daemon import Daemon
from support.wire import Request

IDLE_S = 1.0
LIMIT_S = 12.0
"""Longer than queue, attempts and idle time together: what lasts longer has no end."""
GRACE_S = 2.5
SETTINGS: dict[str, Any] = {
    "server": {
        "header_timeout_s": 2, "body_timeout_s": 2, "request_timeout_s": 2,
        "idle_timeout_s": IDLE_S, "drain_timeout_s": 5,
    },
    "health": {"interval_s": 0.5, "timeout_s": 0.4, "metrics_interval_s": 0.5},
    "ejection": {"consecutive_failures": 4, "base_s": 0.1, "max_s": 0.5},
    "limits": {
        "per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000},
        "max_queue": 64, "queue_timeout_s": 2,
    },
}  # fmt: skip
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SUSPICIOUS = ("Traceback", "handler_failed", "exception", "never retrieved", "socket.send() raised")


@dataclass(slots=True)
class Report:
    """What a run has shown.

    Attributes:
        endings: how often each.
        violations: what must never be, as text, with the visit's number.
        rss: resident bytes, at even distances.
        leaving: seconds from a client's end to the end of its engine's work.
        sends: requests that engines read.
    """

    endings: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    leaving: list[float] = field(default_factory=list)
    sends: int = 0
    seconds: float = 0.0

    @property
    def exchanges(self) -> int:
        return sum(self.endings.values())

    @property
    def rss_growth(self) -> float:
        """Share by which memory grew after the first third."""
        third = len(self.rss) // 3
        return self.rss[-1] / self.rss[third] - 1 if third else 0.0


class Chaos:
    """One run.

    Args:
        seed: everything is drawn from it.
        folder: for the router's files.
        concurrency: visits at once.
        stormy: share of the run with weather, from its end.
    """

    def __init__(self, seed: str, folder: Path, *, concurrency: int, stormy: float) -> None:
        self._seed = seed
        self._folder = folder
        self._concurrency = concurrency
        self._stormy = stormy
        self._exchanges: dict[str, Exchange] = {}
        self._weather_until = 0.0
        self._daemon: Daemon
        self._crowd: Crowd
        self.report = Report()
        both = (visits.MODEL, visits.NARROW)
        self._engines = [Engine(name, (visits.MODEL,), self._play) for name in "abc"]
        self._engines.append(Engine("d", both, self._play))

    async def run(self, numbers: range) -> Report:
        """Make the visits of these numbers; the report."""
        for engine in self._engines:
            await engine.start()
        config = self._config(poor=500 + len(numbers) // 2)
        self._daemon = Daemon(self._folder, config, healthy=len(self._engines))
        try:
            await asyncio.to_thread(self._daemon.__enter__)
            self._crowd = Crowd(self._daemon.port, LIMIT_S)
            began = time.monotonic()
            await self._visit_all(numbers)
            self.report.seconds = time.monotonic() - began
            self._judge_all()
            await self._look_at_what_is_left()
            await asyncio.to_thread(self._daemon.__exit__, None, None)
            self._read_log()
        finally:
            self._daemon.kill()
            for engine in self._engines:
                await engine.die()
        return self.report

    def _config(self, poor: int) -> dict[str, Any]:
        """The configuration; one organization's tokens end in the middle of the run."""
        rows = [{"name": e.name, "url": e.url, "models": list(e.models)} for e in self._engines]
        rows[0]["max_concurrency"] = 12
        rows[-1]["max_concurrency"] = 30
        limits = {visits.ANONYMOUS: None, visits.METERED: 10**12, visits.POOR: poor}
        organizations = [
            {
                "id": name, "daily_tokens": limit, "monthly_tokens": None, "daily_requests": None,
                "keys": [{"id": name, "sha256": sha256(visits.KEYS[name])}],
            }
            for name, limit in limits.items()
        ]  # fmt: skip
        return {**SETTINGS, "services": rows, "organizations": organizations}

    # -- while it runs ---------------------------------------------------------------------------

    def _play(self, engine: str, request: Request) -> Attempt | None:
        name = request.header("x-request-id") or ""
        exchange = self._exchanges.get(name)
        self.report.sends += 1
        if exchange is None:
            self.report.violations.append(f"an engine got what nobody sent: {request.raw[:300]!r}")
            return None
        self._compare(exchange, request)
        number = len(exchange.attempts)
        wish = exchange.wish.asked(number)
        streams, usage, each = asked_of(request)
        told = acts.Asked(wish.marker, streams, usage, each, wish.large)
        act = acts.draw(told, self._rng(wish.marker))
        shown = act.shown if told == wish else acts.draw(wish, self._rng(wish.marker)).shown
        attempt = Attempt(engine, act, shown, time.monotonic())
        exchange.attempts.append(attempt)
        if exchange.left_at and exchange.calm and attempt.at - exchange.left_at > 1:
            self.report.violations.append(f"{wish.marker}: sent long after its client had gone")
        return attempt

    def _rng(self, marker: str) -> random.Random:
        return random.Random(f"{self._seed}/act/{marker}")

    def _compare(self, exchange: Exchange, request: Request) -> None:
        """The engine must get the client's own body, but for the fields that may change."""
        sent, came = json.loads(exchange.wish.body), json.loads(request.body)
        for content in (sent, came):
            content.pop("stream_options", None)
        lowered = any(sent.get(name) != came.get(name) for name in LIMITS)
        if not exchange.wish.filtered and not lowered and request.body != exchange.wish.body:
            self.report.violations.append(f"{exchange.wish.id}: the body was changed")
        for name in LIMITS:
            if came.pop(name, 0) > sent.pop(name, 1 << 30):
                self.report.violations.append(f"{exchange.wish.id}: {name} was raised")
        if sent != came:
            self.report.violations.append(f"{exchange.wish.id}: another body came to the engine")

    async def _visit_all(self, numbers: range) -> None:
        left = iter(numbers)
        watch = asyncio.create_task(self._watch())
        storm = asyncio.create_task(self._storm(numbers))
        workers = [asyncio.create_task(self._work(left)) for _ in range(self._concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (watch, storm):
                task.cancel()
            await asyncio.gather(watch, storm, return_exceptions=True)
            for engine in self._engines:
                await engine.recover()

    async def _watch(self) -> None:
        for pause in itertools.chain([0.0], itertools.repeat(0.5)):
            await asyncio.sleep(pause)
            self.report.rss.append(self._daemon.rss)
            self.report.files.append(self._daemon.open_files)

    async def _storm(self, numbers: range) -> None:
        begins = int(len(numbers) * (1 - self._stormy))
        while len(self._exchanges) < begins:
            await asyncio.sleep(0.05)
        await rain(self._engines, random.Random(f"{self._seed}/weather"), self._note_weather)

    def _note_weather(self, seconds: float) -> None:
        self._weather_until = time.monotonic() + 3 * seconds + GRACE_S

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            visit = visits.draw(self._seed, number)
            mine = [Exchange(wish, visit.manner) for wish in visit.wishes]
            self._exchanges.update({exchange.wish.id: exchange for exchange in mine})
            calm = time.monotonic() > self._weather_until
            answers = await self._crowd.make(visit)
            calm = calm and time.monotonic() > self._weather_until
            if visit.bad is not None:
                with self._noting(f"visit {number}"):
                    self.report.endings[judge_bad(visit.bad, answers[0])] += 1
            before: Got | None = None
            for exchange, got in itertools.zip_longest(mine, answers[: len(mine)]):
                exchange.got, exchange.before, exchange.calm = got, before, calm
                exchange.left_at = 0.0 if got is not None else time.monotonic()
                before = got

    @contextlib.contextmanager
    def _noting(self, where: str) -> Iterator[None]:
        try:
            yield
        except Violation as violation:
            self.report.violations.append(f"{where}: {violation}")

    # -- when all have gone ------------------------------------------------------------------------

    def _judge_all(self) -> None:
        for exchange in self._exchanges.values():
            with self._noting(f"{exchange.wish.id} ({exchange.manner})"):
                self.report.endings[judge(exchange)] += 1
            last = exchange.attempts[-1] if exchange.attempts else None
            if exchange.left_at and last is not None and last.left_at and not last.disturbed:
                self.report.leaving.append(last.left_at - exchange.left_at)

    async def _look_at_what_is_left(self) -> None:
        """Leases, places, reservations and connections are back at zero."""
        self._crowd.close()
        problem = "nothing"
        for _ in range(80):
            problem = await asyncio.to_thread(self._left_over)
            if not problem:
                break
            await asyncio.sleep(0.1)
        else:
            self.report.violations.append(f"left over after 8 s: {problem}")
        for engine in self._engines:
            running = [c for c in engine.connections if c.attempt is not None]
            if running:
                self.report.violations.append(f"{engine.name} still works on {len(running)}")
        self.report.rss.append(self._daemon.rss)
        self.report.files.append(self._daemon.open_files)

    def _left_over(self) -> str:
        daemon = self._daemon
        left = {
            "leases": daemon.in_flight(),
            "places in queues": daemon.metric("router_queue_length"),
            "reservations": daemon.metric("router_ledger_open_reservations"),
            "wrong books": daemon.metric("router_ledger_discrepancies"),
            "client connections": daemon.metric("router_client_connections") - 1,
            "busy connections": daemon.metric("router_upstream_connections", state="busy"),
            "idle connections": daemon.metric("router_upstream_connections", state="idle"),
        }
        return ", ".join(f"{int(count)} {what}" for what, count in left.items() if count)

    def _read_log(self) -> None:
        if self._daemon.exit_status != 0:
            self.report.violations.append(f"the router ended with {self._daemon.exit_status}")
        lines = self._daemon.log.splitlines()
        bad = [line for line in lines if any(mark in line for mark in SUSPICIOUS)]
        if bad:
            self.report.violations.append(f"{len(bad)} odd lines in the log: {bad[0][:1500]}")
        if sum('"listening"' in line for line in lines) != 1:
            self.report.violations.append("the router did not start exactly once")


def passed(report: Report) -> bool:
    return not report.violations and all(ending in set(Ending) for ending in report.endings)
