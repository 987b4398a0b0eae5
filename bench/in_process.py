"""What keys and an exact quota add to a request, in one process and without a socket.

    python -m bench.in_process                 CPU time, the best of many batches: a few seconds
    python -m bench.in_process --cold          the same with caches that are emptied before each
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \\
        python -m bench.in_process --count keys 1000

The whole router runs as it always does, but requests and answers are handed to its connections by
a loop, and what they write goes nowhere. What is left is the router's own code: no kernel, no
wake-ups, warm caches. So it shows small differences that `bench.added_cost` cannot, and is no
measure of what a request really costs. Under callgrind, two counts of requests give the
instructions a request, to a few in ten thousand on any machine: that compares two versions.

A processor that slept between two requests has forgotten much of what it knew. `--cold` is that
without mercy: what counts there is how many different functions and objects a request touches,
not how often. A router under load is between the two.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar, cast

import uvloop

from bench import wire
from bench.added_cost import KEYS, PLAIN, middle
from bench.backend import UNARY_ANSWER
from bench.targets import Testbed, free_port, router_config
from router.config.loading import load
from router.daemon import Daemon
from router.log import configure_logging
from router.model import ServiceState
from router.proxy.upstream_connection import UpstreamConnection

BACKENDS = 2
CLIENTS = 32
BATCH = 300
BATCHES = 60
COLD_REQUESTS = 1500
# Chosen so that a request costs about what it does under load, less the kernel's part.
FORGETTING = bytes(range(1, 256)) * 64 * 1024


class Nowhere:
    """A transport that only remembers that it was written to."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written = data

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.written = pieces[-1]

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 50_000) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    abort = pause_reading = resume_reading = close


class Way:
    """A running router, its clients, and the connections that stand for its engines'."""

    def __init__(self, daemon: Daemon) -> None:
        self._clients = [plugged(daemon.downstream()) for _ in range(CLIENTS)]
        self._engines = []
        for service in daemon.fleet.services:
            pool = daemon.upstreams.pool(service.spec.url)
            engine = plugged(UpstreamConnection(pool))
            pool.give_back(engine[0])
            self._engines.append(engine)

    def go(self, count: int) -> None:
        """Send so many requests, each answered at once by the engine that it was sent to.

        Raises:
            SystemExit: one was answered otherwise.
        """
        for index in range(count):
            client, answer = self._clients[index % CLIENTS]
            client.data_received(REQUEST)
            for engine, sent in self._engines:
                if sent.written:
                    sent.written = b""
                    engine.data_received(UNARY_ANSWER)
            if not answer.written.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"FAILED: {answer.written[:500]!r}")
            answer.written = b""


REQUEST = wire.chat_request("127.0.0.1")
P = TypeVar("P", bound=asyncio.Protocol)


def plugged(protocol: P) -> tuple[P, Nowhere]:
    """A connection with such a transport."""
    transport = Nowhere()
    protocol.connection_made(cast("asyncio.BaseTransport", transport))
    return protocol, transport


@asynccontextmanager
async def way(bed: Testbed, name: str) -> AsyncIterator[Way]:
    """A router called `without`, or `keys` with a key and a quota, as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = Path(folder) / "backends.yaml"
        config.write_text(router_config(free_port(), bed.backend_ports, with_keys=name == KEYS))
        settings = load(config)
        daemon = Daemon(settings, lambda: settings, Path(folder) / "state.db")
        async with daemon.serving():
            while any(
                each.health.state is not ServiceState.HEALTHY for each in daemon.fleet.services
            ):
                await asyncio.sleep(0.01)
            yield Way(daemon)


async def compare(bed: Testbed) -> dict[str, float]:
    """Microseconds of CPU a request: the least of many batches, which take turns."""
    best = {PLAIN: float("inf"), KEYS: float("inf")}
    async with AsyncExitStack() as stack:
        ways = {name: await stack.enter_async_context(way(bed, name)) for name in best}
        for _ in range(BATCHES):
            for name, each in ways.items():
                begin = time.thread_time_ns()
                each.go(BATCH)
                took = (time.thread_time_ns() - begin) / BATCH / 1000
                best[name] = min(best[name], took)
            await asyncio.sleep(0.03)
    return best


async def compare_cold(bed: Testbed) -> dict[str, list[float]]:
    """Microseconds of each request, taken in turns, with nothing of the router in a cache."""
    costs: dict[str, list[float]] = {PLAIN: [], KEYS: []}
    async with AsyncExitStack() as stack:
        ways = {name: await stack.enter_async_context(way(bed, name)) for name in costs}
        for each in ways.values():
            each.go(BATCH)
        gc.collect()
        gc.disable()
        for index in range(COLD_REQUESTS):
            for name, each in ways.items():
                FORGETTING.find(0)
                begin = time.perf_counter_ns()
                each.go(1)
                costs[name].append((time.perf_counter_ns() - begin) / 1000)
            if index % 50 == 0:
                await asyncio.sleep(0.03)
    return costs


async def count(bed: Testbed, name: str, requests: int) -> None:
    """Nothing but so many requests, after a few that warm up."""
    async with way(bed, name) as only:
        only.go(200)
        gc.disable()
        only.go(requests)
        gc.enable()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.in_process")
    parser.add_argument(
        "--count", nargs=2, metavar=("NAME", "N"), help=f"{PLAIN} or {KEYS}, and how many requests"
    )
    parser.add_argument("--cold", action="store_true", help="with empty caches")
    args = parser.parse_args()
    configure_logging("json", "error")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Testbed(Path(folder)) as bed:
        bed.start_backends(BACKENDS)
        if args.count:
            uvloop.run(count(bed, args.count[0], int(args.count[1])))
        elif args.cold:
            tell_cold(uvloop.run(compare_cold(bed)))
        else:
            best = uvloop.run(compare(bed))
            added = best[KEYS] - best[PLAIN]
            told = f"{PLAIN} {best[PLAIN]:.1f}, {KEYS} {best[KEYS]:.1f} CPU µs a request"
            print(f"{told}: {added:+.1f}")


def tell_cold(costs: dict[str, list[float]]) -> None:
    """Print the medians, and the median difference of neighbours."""
    added = [more - less for more, less in zip(costs[KEYS], costs[PLAIN], strict=True)]
    value, low, high = middle(added)
    plain, keys = (median(costs[name]) for name in (PLAIN, KEYS))
    print(f"cold: {PLAIN} {plain:.1f}, {KEYS} {keys:.1f} µs a request: ", end="")
    print(f"{value:+.1f} (95 %: {low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
