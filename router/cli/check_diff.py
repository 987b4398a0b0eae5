"""`router check --diff`: what a reload would change in the daemon that runs."""

from __future__ import annotations

from pathlib import Path

import typer

from router.cli.state import fail, state_path_or_exit, tell
from router.config import Settings
from router.config.diff import diff_redacted
from router.config.redacted import redacted
from router.config.snapshot import Snapshot, SnapshotError, read_snapshot, snapshot_path

_NO_SNAPSHOT = (
    "the running configuration is kept beside the state database, and there is none; "
    "compare the files themselves"
)
_ELSEWHERE = (
    "if one does run, give this command its --state-dir, or start it in the same folder; "
    "a new ledger.url needs a restart, not a reload"
)


def print_diff(settings: Settings, state_dir: Path | None) -> bool:
    """Print what differs from what runs; tells whether a reload would take it over.

    Ends with status 2 where it is not known what runs.
    """
    snapshot = _running(settings, state_dir)
    change = diff_redacted(snapshot.settings, redacted(settings), pinned=snapshot.pinned)
    running = f"generation {snapshot.generation}, running since {snapshot.since}"
    if change.is_empty:
        typer.echo(f"no change to {running}")
        return True
    for line in change.lines():
        typer.echo(line)
    if change.refused:
        tell(f"a reload would be refused: {running} would go on as it is")
    else:
        tell(f"a reload would make these changes to {running}")
    return not change.refused


def _running(settings: Settings, state_dir: Path | None) -> Snapshot:
    path = snapshot_path(state_path_or_exit(settings, state_dir, without=_NO_SNAPSHOT))
    try:
        return read_snapshot(path)
    except SnapshotError as error:
        fail(f"{error}; {_ELSEWHERE}", status=2)
