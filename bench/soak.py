"""Hours in minutes: a mixed load for a chosen time, and what it leaves behind in the router.

    python -m bench.soak --minutes 20 --rate 100

Three simulated engines, one of which is killed and started again every minute; streams, unary
answers, embeddings, clients that leave, requests that are refused, keys with quotas. Memory,
descriptors, connections and the ledger are sampled all the while. Exit status 1: memory grew by 2 %
or more after the warm-up, descriptors are not flat, or something was not given back at the end.
"""

import argparse
import asyncio
import hashlib
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from bench.targets import HARNESS_CORE, PROXY_CORE, Child, end_on_sigterm, free_port

MODEL = "soak"
CHAT = "/v1/chat/completions"
KEYS = {
    "metered": "sk-metered-" + "0" * 32,
    "free": "sk-free-" + "1" * 32,
    "poor": "sk-poor-" + "2" * 32,
}
MIX = {
    "stream": 38,
    "unary": 30,
    "embeddings": 6,
    "leaves-early": 8,
    "leaves-mid-stream": 8,
    "refused": 10,
}
WARM_UP, WINDOW = 0.2, 0.15
RSS_MARK, DESCRIPTOR_SLACK = 0.02, 4
SETTLE_S = 12.0
VALUE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """The router at one moment: seconds since the start, bytes, and counts."""

    at: float
    rss: int
    files: int
    gauges: dict[str, float]


GAUGES = {
    "clients": ("router_client_connections", ""),
    "idle": ("router_upstream_connections", "idle"),
    "busy": ("router_upstream_connections", "busy"),
    "leases": ("router_requests_in_flight", ""),
    "queued": ("router_queue_length", ""),
    "reserved": ("router_ledger_open_reservations", ""),
    "wrong": ("router_ledger_discrepancies", ""),
    "tasks": ("router_tasks", ""),
}


def read_gauges(text: str) -> dict[str, float]:
    """Sums of the gauges that are watched; what the router does not tell is left out."""
    found: dict[str, float] = {}
    for name, labels, value in VALUE.findall(text):
        for short, (metric, label) in GAUGES.items():
            if name == metric and label in labels:
                found[short] = found.get(short, 0.0) + float(value)
    return found


def resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Fleet:
    """The processes: engines, and the router in front of them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._ports = [free_port() for _ in range(3)]
        self._engines = [self._engine(number) for number in range(3)]
        for port, engine in zip(self._ports, self._engines, strict=True):
            engine.wait_until(port, "/health")
        self.port = free_port()
        config = folder / "backends.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        command = [sys.executable, "-m", "router", "serve", "--config", str(config)]
        command += ["--state-dir", str(folder / "state")]
        self.router = Child("router", command, PROXY_CORE, folder)
        stack.callback(self.router.stop)
        self.router.wait_until(self.port, "/health")

    def _engine(self, number: int) -> Child:
        port = str(self._ports[number])
        command = [sys.executable, "-m", "router", "simulate", "--port", port, "--model", MODEL]
        command += ["--answer-tokens", "12", "--time-scale", "20"]
        child = Child(f"engine-{number}-{time.monotonic_ns()}", command, HARNESS_CORE, self._folder)
        self._stack.callback(child.stop)
        return child

    def _config(self) -> dict[str, object]:
        limits = {"metered": 10**12, "free": None, "poor": 20_000}
        none = {"monthly_tokens": None, "daily_requests": None}
        return {
            "server": {"host": "127.0.0.1", "port": self.port},
            "limits": {"per_ip": {"requests_per_second": 100_000, "burst": 100_000}},
            "health": {"interval_s": 2},
            "ejection": {"base_s": 1, "max_s": 5},
            "services": [
                {"name": f"engine-{n}", "url": f"http://127.0.0.1:{port}", "max_concurrency": 20}
                for n, port in enumerate(self._ports)
            ],
            "organizations": [
                {"id": name, "daily_tokens": tokens, **none, "keys": [
                    {"id": name, "sha256": hashlib.sha256(KEYS[name].encode()).hexdigest()}]}
                for name, tokens in limits.items()
            ],
        }  # fmt: skip

    def replace_last_engine(self) -> None:
        """Kill it in the middle of its work, and start it again on its port."""
        os.kill(self._engines[-1].pid, 9)
        self._engines[-1].stop()
        self._engines[-1] = self._engine(2)


class Load:
    """Requests at an even rate, each of a kind that is drawn."""

    def __init__(self, session: aiohttp.ClientSession, url: str, rng: random.Random) -> None:
        self._session = session
        self._url = url
        self._rng = rng
        self._running: set[asyncio.Task[None]] = set()
        self.outcomes: Counter[str] = Counter()

    async def run(self, rate: float, seconds: float) -> None:
        end, due = time.monotonic() + seconds, time.monotonic()
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._one(*self._rng.choices(list(MIX), list(MIX.values()))))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            due += 1 / rate
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _one(self, kind: str) -> None:
        owner = self._rng.choices(list(KEYS), [6, 3, 1])[0]
        headers = {"authorization": f"Bearer {KEYS[owner]}"}
        try:
            async with asyncio.timeout(60):
                self.outcomes[f"{kind} {await self._ask(kind, headers)}"] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.outcomes[f"{kind} {type(error).__name__}"] += 1

    async def _ask(self, kind: str, headers: dict[str, str]) -> str:
        if kind == "embeddings":
            return await self._read("/v1/embeddings", {"model": MODEL, "input": "soak"}, headers)
        if kind == "refused":
            model = self._rng.choice([MODEL, "nobody"])
            return await self._read(CHAT, {"model": model, "messages": 7}, headers)
        text = "word " * self._rng.randint(1, 200)
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 24}
        if kind == "unary":
            return await self._read(CHAT, body, headers)
        body["stream"] = True
        if kind == "stream":
            return await self._read(CHAT, body, headers)
        return await self._leave(body, headers, mid_stream=kind == "leaves-mid-stream")

    async def _read(self, path: str, body: object, headers: dict[str, str]) -> str:
        async with self._session.post(self._url + path, json=body, headers=headers) as answer:
            content = await answer.read()
            broken = b'"upstream_disconnected"' in content
            return f"{answer.status}{' broken off' if broken else ''}"

    async def _leave(self, body: object, headers: dict[str, str], *, mid_stream: bool) -> str:
        if not mid_stream:
            try:
                async with asyncio.timeout(self._rng.uniform(0, 0.01)):
                    await self._read(CHAT, body, headers)
            except TimeoutError:
                pass
            return "left"
        async with self._session.post(self._url + CHAT, json=body, headers=headers) as answer:
            await answer.content.readany()
            answer.close()
            return "left"


class Watch:
    """Samples the router, and says how it went."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int) -> None:
        self._session = session
        self._url = url
        self._pid = pid
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    async def sample(self) -> Sample:
        async with self._session.get(self._url + "/metrics") as answer:
            gauges = read_gauges(await answer.text())
        files = len(os.listdir(f"/proc/{self._pid}/fd"))  # noqa: PTH208 - a count of names
        return Sample(time.monotonic() - self._began, resident(self._pid), files, gauges)

    async def run(self, every_s: float) -> None:
        while True:
            self.samples.append(await self.sample())
            if len(self.samples) % 6 == 1:
                print(row(self.samples[-1]), flush=True)
            await asyncio.sleep(every_s)

    def problems(self, settled: Sample) -> list[str]:
        """What is not as it should be; empty: all is well."""
        count = len(self.samples)
        width = max(1, int(count * WINDOW))
        first = self.samples[int(count * WARM_UP) :][:width]
        last = self.samples[-width:]
        grown = median(last, "rss") / median(first, "rss") - 1
        files = median(last, "files") - median(first, "files")
        print(f"resident memory after the warm-up: {grown:+.2%}; descriptors {files:+.0f}")
        found = []
        if grown >= RSS_MARK:
            found.append(f"memory grew by {grown:.2%}; the mark is less than {RSS_MARK:.0%}")
        if abs(files) > DESCRIPTOR_SLACK:
            found.append(f"descriptors are not flat: {files:+.0f}")
        left = ("busy", "leases", "queued", "reserved", "wrong")
        return found + [
            f"{settled.gauges[name]:.0f} {name} left when all was over"
            for name in left
            if settled.gauges.get(name)
        ]


def median(samples: list[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def heading() -> str:
    return f"{'min':>6} {'MiB':>8} {'files':>6} " + " ".join(f"{name:>8}" for name in GAUGES)


def row(sample: Sample) -> str:
    told = " ".join(
        f"{sample.gauges[name]:8.0f}" if name in sample.gauges else f"{'-':>8}" for name in GAUGES
    )
    return f"{sample.at / 60:6.1f} {sample.rss / (1 << 20):8.2f} {sample.files:6} {told}"


async def kill_now_and_then(fleet: Fleet, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(fleet.replace_last_engine)


async def soak(fleet: Fleet, minutes: float, rate: float, seed: int) -> list[str]:
    url = f"http://127.0.0.1:{fleet.port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        watch = Watch(session, url, fleet.router.pid)
        load = Load(session, url, random.Random(seed))
        print(heading())
        side = [
            asyncio.create_task(watch.run(max(0.5, minutes * 60 / 240))),
            asyncio.create_task(kill_now_and_then(fleet, max(5.0, minutes * 3))),
        ]
        await load.run(rate, minutes * 60)
        for task in side:
            task.cancel()
        await asyncio.gather(*side, return_exceptions=True)
        await asyncio.sleep(SETTLE_S)
        settled = await watch.sample()
        print(row(settled), " after all was over")
        for outcome, count in sorted(load.outcomes.items()):
            print(f"{count:9} {outcome}")
        return watch.problems(settled)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ExitStack() as stack:
        fleet = Fleet(stack, Path(folder))
        problems = asyncio.run(soak(fleet, args.minutes, args.rate, args.seed))
    for problem in problems:
        print(f"MISSED: {problem}", file=sys.stderr)
    print("failed" if problems else "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
