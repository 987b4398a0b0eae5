"""A short run of the chaos harness; `make chaos` makes long ones, of any seed."""

from __future__ import annotations

import uvloop

from e2e.chaos.harness import Chaos, passed
from e2e.chaos.oracle import Ending

VISITS = 1500


def test_every_chaotic_exchange_ends_whole_or_honestly_or_with_its_client_gone(tmp_path, finding):
    chaos = Chaos("short", tmp_path, concurrency=150, stormy=0.5)
    report = uvloop.run(chaos.run(range(VISITS)))
    endings = ", ".join(f"{count} {ending}" for ending, count in report.endings.most_common())
    finding(f"chaos: {report.exchanges} exchanges in {report.seconds:.1f} s: {endings}")
    assert report.violations == []
    assert passed(report)
    assert set(report.endings) == set(Ending)
