"""CPU time that a part of the router adds to a request and to an event.

    python -m bench.added_cost             keys and an exact quota: nine rounds, about two minutes
    python -m bench.added_cost --of log    the access log
    python -m bench.added_cost --quick     one short round: does everything work?

Two routers share core 1, one without the part and one with it: a router that serves everybody, and
one that asks for a key, counts the organization's tokens in a database on disk and tells what is
left; or a router without an access log, and one that writes a line a request to a file. Both get
the same load in every round, in an order that changes; what counts is the median of the rounds' own
differences.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench import wire
from bench.client import LoadError
from bench.cpu import family
from bench.overhead import BACKENDS, Plan, measure
from bench.report import UNITS, Measurement, progress
from bench.targets import (
    HARNESS_CORE,
    PROXY_CORE,
    ROUTER_CONFIG,
    StartError,
    Target,
    Testbed,
    end_on_sigterm,
    free_port,
)

PLAIN = "without"
KEYS, LOG = "keys", "log"
MARKS_US = {KEYS: 6.0}
ORGANIZATION = """\
organizations:
  - id: bench
    daily_tokens: 1000000000000
    monthly_tokens: 1000000000000
    daily_requests: 1000000000
    keys: [{{id: bench-1, sha256: {digest}}}]
"""


class RouterPair(Testbed):
    """Starts routers with and without keys, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder

    def start(self, name: str) -> Target:
        """Start the router called `without`, or as the part that it has."""
        port = free_port()
        folder = self._root / name
        folder.mkdir()
        config = folder / "backends.yaml"
        config.write_text(self._config(port, with_keys=name == KEYS))
        command = [sys.executable, "-m", "router", "serve", "--config", str(config)]
        command.append("--access-log" if name == LOG else "--no-access-log")
        child = self._spawn(name, [*command, "--state-dir", str(folder)], PROXY_CORE)
        child.wait_until(port, "/health")
        return Target(name, [port], family(child.pid))

    def _config(self, port: int, *, with_keys: bool) -> str:
        services = "\n".join(
            f"  - {{name: bench-{index}, url: 'http://127.0.0.1:{p}', models: [{wire.MODEL}]}}"
            for index, p in enumerate(self.backend_ports)
        )
        digest = hashlib.sha256(wire.KEY.encode()).hexdigest()
        keys = ORGANIZATION.format(digest=digest) if with_keys else ""
        return ROUTER_CONFIG.format(port=port, services=services) + keys


def differences(rows: Sequence[Measurement], mode: str, part: str) -> list[float]:
    """Microseconds a unit of work that the part adds, round by round."""
    cost = {(row.round, row.target): row.proxy_us for row in rows if row.mode == mode}
    rounds = sorted({round_ for round_, _ in cost})
    return [cost[each, part] - cost[each, PLAIN] for each in rounds]


def collect(plan: Plan, folder: Path) -> list[Measurement]:
    """Start everything, measure in rounds of which the first only warms up, stop everything."""
    rows = []
    with RouterPair(folder) as bed:
        bed.start_backends(BACKENDS)
        targets = [bed.start(name) for name in plan.targets]
        for round_ in range(plan.rounds + 1):
            targets.reverse()
            for mode in plan.modes:
                for target in targets:
                    row = measure(mode, target, bed, plan, round_)
                    if round_:
                        rows.append(row)
                        print(progress(row), flush=True)
    return rows


def tell(rows: Sequence[Measurement], modes: Sequence[str], part: str) -> None:
    """Print the medians and what lies between them."""
    for mode in modes:
        cost = {
            name: median(row.proxy_us for row in rows if (row.mode, row.target) == (mode, name))
            for name in (PLAIN, part)
        }
        added = differences(rows, mode, part)
        print(
            f"{part}, {mode}: {cost[PLAIN]:.1f} -> {cost[part]:.1f} CPU µs a {UNITS[mode]},"
            f" {median(added):+.1f} (rounds {min(added):+.1f} to {max(added):+.1f})"
            + (f"; mark: {MARKS_US[part]:+.0f}" if mode == "unary" and part in MARKS_US else "")
        )


def main() -> int:
    """Exit status: 0 measured, 1 a wrong answer or a process that did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench.added_cost")
    parser.add_argument("--of", choices=[KEYS, LOG], default=KEYS, help="the part")
    parser.add_argument("--modes", default="unary,stream", help="of unary, stream and closed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one window")
    parser.add_argument("--rate", type=float, default=4000, help="unary requests a second")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    args = parser.parse_args()
    plan = Plan(
        targets=[PLAIN, args.of],
        modes=args.modes.split(","),
        rounds=1 if args.quick else args.rounds,
        seconds=1.0 if args.quick else args.seconds,
        rate=args.rate,
        connections=32,
        streams=200,
        phases=10,
    )
    end_on_sigterm()
    os.sched_setaffinity(0, {HARNESS_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            rows = collect(plan, Path(folder))
        except (LoadError, StartError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    tell(rows, plan.modes, args.of)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
