"""CPU time that a part of the router adds to a request.

    python -m bench.added_cost             keys and an exact quota: about two minutes
    python -m bench.added_cost --of log    the access log
    python -m bench.added_cost --together  all at once: three minutes, and far more exact
    python -m bench.added_cost --quick     a few seconds: does everything work?

Two routers share core 1, one without the part and one with it: a router that serves everybody, and
one that asks for a key, counts the organization's tokens in a database on disk and tells what is
left; or a router without an access log, and one that writes a line a request to a file. nginx is
the third, as a measure of the machine. They get the same load in turns of half a second, so short
that what disturbs one disturbs the others; what counts is the median of the turns' differences.

`--together` gives each a third of the load at the same time. What disturbs one then disturbs all in
the same moment, so that half a microsecond shows. Each finds the caches as the others have left
them, and a write to the database is shared by a third of the requests, so the figures are higher
than one after the other.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

from bench import wire
from bench.client import LoadError, Outcome
from bench.cpu import Meter, family
from bench.load import GRACE_S, UnaryLoad
from bench.overhead import BACKENDS
from bench.targets import (
    HARNESS_CORE,
    PROXY_CORE,
    StartError,
    Target,
    Testbed,
    end_on_sigterm,
    free_port,
    router_config,
)

PLAIN = "without"
NGINX = "nginx"
KEYS, LOG = "keys", "log"
MARKS_US = {KEYS: 6.0}
CONNECTIONS = 32
# In this time a router has written what its last requests left behind: that is their cost, too.
PAUSE_S = 0.12


class RouterPair(Testbed):
    """Starts routers with and without a part, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder

    def start(self, name: str) -> Target:
        """Start nginx, the router called `without`, or the one that has the part of that name."""
        if name == NGINX:
            return super().start(name)
        port = free_port()
        folder = self._root / name
        folder.mkdir()
        config = folder / "backends.yaml"
        config.write_text(router_config(port, self.backend_ports, with_keys=name == KEYS))
        command = [sys.executable, "-m", "router", "serve", "--config", str(config)]
        command.append("--access-log" if name == LOG else "--no-access-log")
        child = self._spawn(name, [*command, "--state-dir", str(folder)], PROXY_CORE)
        child.wait_until(port, "/health")
        return Target(name, [port], family(child.pid))


@dataclass(frozen=True)
class Plan:
    """How long a turn takes, how many count, and how many requests a second there are in it."""

    turns: int
    seconds: float
    rate: float
    together: bool = False


class Side:
    """One target under load: connections that stay, and CPU time a request in each turn."""

    def __init__(self, target: Target, rate: float) -> None:
        self.name = target.name
        self.costs: list[float] = []
        self._ports = target.ports
        self._outcome = Outcome()
        request = wire.chat_request(f"127.0.0.1:{target.ports[0]}")
        self._load = UnaryLoad(rate, self._outcome, request)
        self._meter = Meter(target.pids, [], PROXY_CORE)

    async def connect(self) -> None:
        await self._load.connect(self._ports, CONNECTIONS)

    async def turn(self, seconds: float) -> None:
        """Take the load for so long; CPU time in microseconds a request is added to `costs`."""
        self._load.reset()
        self._meter.start()
        await self._load.drive(seconds)
        await self._outcome.settle(GRACE_S)
        await asyncio.sleep(PAUSE_S)
        usage = self._meter.stop()
        self.costs.append(usage.proxy_ns / len(self._load.delays) / 1000)

    def close(self) -> None:
        self._load.close()


async def measure(targets: Sequence[Target], plan: Plan) -> list[Side]:
    """Every target in turn, in an order that changes, or all; the first tenth only warms up."""
    rate = plan.rate / len(targets) if plan.together else plan.rate
    sides = [Side(target, rate) for target in targets]
    order = list(sides)
    for side in sides:
        await side.connect()
    for _ in range(plan.turns + plan.turns // 10 + 1):
        order.append(order.pop(0))
        if plan.together:
            await asyncio.gather(*(side.turn(plan.seconds) for side in order))
        else:
            for side in order:
                await side.turn(plan.seconds)
    for side in sides:
        side.close()
        del side.costs[: -plan.turns]
    return sides


def start(bed: RouterPair, part: str) -> list[Target]:
    """Start everything; without nginx, say so and go on."""
    bed.start_backends(BACKENDS)
    targets = [bed.start(PLAIN), bed.start(part)]
    try:
        targets.append(bed.start(NGINX))
    except StartError as error:
        print(f"\n*** SKIPPED: nginx ***  {error}\n", file=sys.stderr)
    return targets


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and between which two values it is in 95 of 100 such measurements."""
    ordered = sorted(values)
    count = len(ordered)
    reach = int(0.98 * count**0.5) + 1
    low, high = max(0, count // 2 - reach), min(count - 1, count // 2 + reach)
    return median(ordered), ordered[low], ordered[high]


def tell(sides: Sequence[Side], part: str) -> None:
    """Print the medians, and what the part adds."""
    costs = {side.name: side.costs for side in sides}
    for name, values in costs.items():
        turns = f"(turns {min(values):.1f} to {max(values):.1f})"
        print(f"{name:8} {median(values):6.1f} CPU µs a request {turns}")
    added = [more - less for more, less in zip(costs[part], costs[PLAIN], strict=True)]
    value, low, high = middle(added)
    print(f"{part} adds {value:+.1f} µs a request (95 %: {low:+.1f} to {high:+.1f})", end="")
    if NGINX in costs:
        print(f", {value / median(costs[NGINX]):+.2f} of what nginx takes", end="")
    print(f"; mark: {MARKS_US[part]:+.0f} µs" if part in MARKS_US else "")


def main() -> int:
    """Exit status: 0 measured, 1 a wrong answer or a process that did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench.added_cost")
    parser.add_argument("--of", choices=[KEYS, LOG], default=KEYS, help="the part")
    parser.add_argument("--turns", type=int, default=60, help="of each target")
    parser.add_argument("--seconds", type=float, help="length of a turn: 0.5; together 2.5")
    parser.add_argument("--rate", type=float, default=4000, help="a second; 0: closed loop")
    parser.add_argument("--together", action="store_true", help="all at once, in longer turns")
    parser.add_argument("--quick", action="store_true", help="three short turns")
    args = parser.parse_args()
    seconds = args.seconds or (2.5 if args.together else 0.5)
    turns, seconds = (3, 0.2) if args.quick else (args.turns, seconds)
    plan = Plan(turns, seconds, args.rate, args.together)
    end_on_sigterm()
    os.sched_setaffinity(0, {HARNESS_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, RouterPair(Path(folder)) as bed:
        try:
            targets = start(bed, args.of)
            gc.collect()
            gc.disable()
            sides = uvloop.run(measure(targets, plan))
        except (LoadError, StartError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    tell(sides, args.of)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
