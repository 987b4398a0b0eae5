"""`router usage`: what organizations have used and may still use, read from the state database."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.access.known import with_defaults
from router.cli.state import (
    DEFAULT_CONFIG,
    ConfigOption,
    StateDirOption,
    existing_or_exit,
    fail,
    load_or_exit,
    opened_database,
    state_path_or_exit,
)
from router.config import Settings
from router.ledger import Kind, Period, WindowUsage, stored_usage
from router.state import limits_of
from router.storage import Database, KeyTable

_PIPE_WIDTH = 200
_UNBOUNDED = 1000
_NAMES = {
    (Kind.TOKENS, Period.DAY): "tokens today",
    (Kind.TOKENS, Period.MONTH): "tokens this month",
    (Kind.REQUESTS, Period.DAY): "requests today",
}

Usage = Mapping[str, Sequence[WindowUsage]]


def usage(
    *,
    org: Annotated[str | None, typer.Option(help="This organization alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state_dir: StateDirOption = None,
) -> None:
    """Print tokens and requests used and left, a day and a month (UTC).

    It reads the state database, whether the daemon runs or not; what a running one has settled is
    there within 0.1 s, what it has reserved within a second. After a crash what was reserved is
    shown until the next start.

    Exit status: 0 done; 1 the database cannot be read, or has no such organization; 2 wrong usage
    or configuration.
    """
    settings = load_or_exit(config)
    path = state_path_or_exit(
        settings, state_dir, "usage is in the daemon's memory alone; ask it: GET /stats"
    )
    with opened_database(existing_or_exit(path)) as database:
        found = read_usage(database, settings, time.time())
    if org is not None:
        if org not in found:
            known = ", ".join(found) or "there is none yet"
            fail(f"no organization {org!r} has limits, a key or usage; known: {known}", status=1)
        found = {org: found[org]}
    if as_json:
        print(json.dumps([_plain(name, windows) for name, windows in found.items()], indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table(found, console.width) if found else "No organizations, and no usage.")


def read_usage(database: Database, settings: Settings, now: float) -> Usage:
    """Every organization's windows, as they are on disk.

    Raises:
        StorageError: the file cannot be read.
    """
    with_keys = {row.organization for row in KeyTable(database).rows()}
    organizations = with_defaults(settings.organizations, with_keys)
    return stored_usage(database, {each.id: limits_of(each) for each in organizations}, now)


def table(found: Usage, width: int) -> Table:
    """The windows of every organization; where `width` is too little, without lines between them.

    Figures are never cut: words are folded, and an organization's name has a row of its own.
    """
    whole = Table()
    for column in ("organization", "what"):
        whole.add_column(column, overflow="fold")
    _add_figures(whole)
    for name, windows in found.items():
        for position, window in enumerate(windows):
            first = "" if position else escape(name)
            whole.add_row(first, *_cells(window), end_section=window is windows[-1])
    is_wide = Console(width=_UNBOUNDED).measure(whole).maximum <= width
    return whole if is_wide else _narrow(found)


def _narrow(found: Usage) -> Table:
    narrow = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    narrow.add_column("", overflow="fold")
    _add_figures(narrow)
    for name, windows in found.items():
        narrow.add_row(f"[bold]{escape(name)}[/]")
        for window in windows:
            narrow.add_row(*_cells(window))
    return narrow


def _add_figures(rows: Table) -> None:
    for column in ("used", "reserved", "limit", "left"):
        rows.add_column(column, justify="right", no_wrap=True)
    rows.add_column("ends (UTC)")


def _cells(window: WindowUsage) -> tuple[str, ...]:
    return (
        _NAMES[window.kind, window.period],
        f"{window.used:,}",
        f"{window.reserved:,}",
        _number(window.limit),
        _left(window),
        f"{datetime.fromtimestamp(window.resets_at, UTC):%Y-%m-%d %H:%M}",
    )


def _left(window: WindowUsage) -> str:
    if window.remaining == 0:
        return "[bold red]0[/]"
    return _number(window.remaining)


def _number(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"


def _plain(name: str, windows: Sequence[WindowUsage]) -> dict[str, Any]:
    """One organization in the form of `GET /v1/usage`."""
    return {"organization": name, "windows": [_plain_window(window) for window in windows]}


def _plain_window(window: WindowUsage) -> dict[str, Any]:
    resets_at = datetime.fromtimestamp(window.resets_at, UTC)
    return {**window._asdict(), "resets_at": f"{resets_at:%Y-%m-%dT%H:%M:%SZ}"}
