"""Hostile engines, hostile clients, one router, and an oracle.

    PYTHONPATH=tests python -m e2e.chaos --seed 1 --count 50000

Everything is drawn from the seed; `--first N --count 1` makes one visit of it again, alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import uvloop

from e2e.chaos.harness import Chaos, Report, passed


def tell(report: Report, seed: str) -> None:
    print(f"seed {seed}: {report.exchanges} exchanges in {report.seconds:.0f} s, "
          f"{report.sends} requests to engines")  # fmt: skip
    for ending, count in report.endings.most_common():
        print(f"  {count:7} {ending}")
    if report.leaving:
        ordered = sorted(report.leaving)
        median = ordered[len(ordered) // 2]
        print(f"  engine's work ended after its client: median {median * 1e3:.1f} ms, "
              f"worst {ordered[-1] * 1e3:.0f} ms of {len(ordered)}")  # fmt: skip
    print(f"  resident {report.rss[0] >> 20} -> {max(report.rss) >> 20} (most) -> "
          f"{report.rss[-1] >> 20} MiB, {report.rss_growth:+.1%} after the first third; "
          f"files {report.files[0]} -> {max(report.files)} -> {report.files[-1]}")  # fmt: skip
    every = max(1, len(report.rss) // 10)
    print(f"  resident MiB over time: {' '.join(str(size >> 20) for size in report.rss[::every])}")
    for violation in report.violations[:40]:
        print(f"  VIOLATION {violation}")
    print(f"  {len(report.violations)} violations")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", default="1")
    parser.add_argument(
        "--count", type=int, default=10_000, help="visits; some make several exchanges"
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--stormy", type=float, default=0.5, help="share of the run with weather")
    parser.add_argument("--keep", type=Path, help="folder for the router's files, kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(args.seed, args.keep or Path(folder), concurrency=args.concurrency,
                      stormy=args.stormy)  # fmt: skip
        report = uvloop.run(chaos.run(range(args.first, args.first + args.count)))
    tell(report, args.seed)
    return 0 if passed(report) else 1


if __name__ == "__main__":
    raise SystemExit(main())
