"""CPU time a request and an event: the router beside nginx and beside a direct connection.

    python -m bench                 five rounds, about two minutes
    python -m bench --quick         one short round: does everything work?

Load generator and backends share core 0, the proxy under test has core 1 for itself. In every round
each target gets the same load, in an order that rotates; the figures are medians over the rounds.
"""

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.client import LoadError
from bench.cpu import Meter
from bench.load import Samples, percentile, run_streams, run_unary
from bench.report import Measurement, as_json, progress, summarise, tables
from bench.targets import HARNESS_CORE, PROXY_CORE, StartError, Target, Testbed, end_on_sigterm

BACKENDS = 2


@dataclass(frozen=True)
class Plan:
    """What is measured; `rate` in requests a second, `seconds` the length of one window."""

    targets: Sequence[str]
    modes: Sequence[str]
    rounds: int
    seconds: float
    rate: float
    connections: int
    streams: int
    phases: int


async def run_mode(mode: str, target: Target, meter: Meter, plan: Plan) -> Samples:
    if mode == "stream":
        return await run_streams(target.ports, meter, seconds=plan.seconds, streams=plan.streams)
    rate = plan.rate if mode == "unary" else 0
    return await run_unary(
        target.ports, meter, seconds=plan.seconds, rate=rate, connections=plan.connections
    )


def measure(mode: str, target: Target, bed: Testbed, plan: Plan, round_: int) -> Measurement:
    """One window of one load on one target."""
    meter = Meter(target.pids, bed.backend_pids, PROXY_CORE)
    gc.collect()
    gc.disable()
    try:
        samples = uvloop.run(run_mode(mode, target, meter, plan))
    finally:
        gc.enable()
    usage = samples.usage
    return Measurement(
        round=round_,
        mode=mode,
        target=target.name,
        units=samples.units,
        per_second=samples.units * 1e9 / usage.wall_ns,
        proxy_us=usage.proxy_ns / samples.units / 1000,
        harness_us=usage.harness_ns / samples.units / 1000,
        foreign_percent=100 * usage.foreign_ns / usage.wall_ns,
        delay_p50_us=percentile(samples.delays, 50),
        delay_p99_us=percentile(samples.delays, 99),
        first_p50_us=percentile(samples.first, 50),
        late=samples.late,
    )


def start_targets(bed: Testbed, names: Sequence[str]) -> list[Target]:
    """Start what can be started; say loudly what is missing."""
    targets = []
    for name in names:
        try:
            targets.append(bed.start(name))
        except StartError as error:
            print(f"\n*** SKIPPED: {name} ***  {error}\n", file=sys.stderr)
    return targets


def run_rounds(bed: Testbed, plan: Plan, targets: Sequence[Target]) -> Iterator[Measurement]:
    """Every mode on every target, round by round; round 0 warms everything up: do not count it."""
    for round_ in range(plan.rounds + 1):
        turn = round_ % len(targets)
        for mode in plan.modes:
            for target in [*targets[turn:], *targets[:turn]]:
                yield measure(mode, target, bed, plan, round_)


def machine() -> dict[str, object]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--targets", default="direct,nginx,router", help="of these, with commas")
    parser.add_argument("--modes", default="unary,stream", help="of unary, stream and closed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one window")
    parser.add_argument("--rate", type=float, default=4000, help="unary requests a second")
    parser.add_argument("--connections", type=int, default=32, help="of unary clients")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--phases", type=int, default=10, help="1: all streams tick at once")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    return parser.parse_args()


def plan_of(args: argparse.Namespace) -> Plan:
    return Plan(
        targets=args.targets.split(","),
        modes=args.modes.split(","),
        rounds=1 if args.quick else args.rounds,
        seconds=1.0 if args.quick else args.seconds,
        rate=args.rate,
        connections=args.connections,
        streams=args.streams,
        phases=args.phases,
    )


def collect(plan: Plan, folder: Path) -> tuple[list[Target], list[Measurement]]:
    """Start everything, measure, stop everything."""
    rows = []
    with Testbed(folder, plan.phases) as bed:
        bed.start_backends(BACKENDS)
        targets = start_targets(bed, plan.targets)
        for row in run_rounds(bed, plan, targets):
            if row.round:
                rows.append(row)
                print(progress(row), flush=True)
    return targets, rows


def main() -> int:
    """Exit status: 0 all measured, 1 a wrong answer or no backends, 3 a target was skipped."""
    args = parse_arguments()
    plan = plan_of(args)
    end_on_sigterm()
    os.sched_setaffinity(0, {HARNESS_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            targets, rows = collect(plan, Path(folder))
        except (LoadError, StartError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    summaries = summarise(rows)
    print("\n" + tables(summaries))
    if args.json:
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "plan": asdict(plan),
            "summary": [as_json(summary) for summary in summaries],
            "measurements": [as_json(row) for row in rows],
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if len(targets) == len(plan.targets) else 3


if __name__ == "__main__":
    raise SystemExit(main())
