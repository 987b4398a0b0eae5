"""Keys as people and programs read them: from both sources, without a key or a hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.config.settings import KeySettings, OrganizationSettings
from router.storage import KeyRow

_PIPE_WIDTH = 200
_STYLES = {"active": "green", "expired": "yellow", "revoked": "red"}


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key. Times are RFC 3339, UTC.

    Attributes:
        id: what logs call it.
        organization: whose it is.
        state: `active`, `expired` or `revoked`.
        models: patterns of its scope.
        priority: in a queue, higher goes first.
        begins: the key's first characters; None where only a hash was ever known.
        created: when it was made; None where nobody wrote that down.
        expires: when it ends or ended by itself; None: never.
        revoked: when it was revoked; None: it was not.
        kept_in: `database`, or the name of the configuration.
    """

    id: str
    organization: str
    state: str
    models: tuple[str, ...]
    priority: int
    begins: str | None
    created: str | None
    expires: str | None
    revoked: str | None
    kept_in: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def utc(seconds: float) -> str:
    """RFC 3339, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_lines(
    organizations: Iterable[OrganizationSettings], rows: Iterable[KeyRow], config: str, now: float
) -> list[KeyLine]:
    """All keys, by organization; `config` is what the configuration is called."""
    lines = [_stored(row, now) for row in rows]
    lines += [_configured(each.id, key, config, now) for each in organizations for key in each.keys]
    return sorted(lines, key=lambda line: line.organization)


def print_lines(lines: Iterable[KeyLine]) -> None:
    """Print a table, wide where nobody's terminal is."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    table = Table()
    for column in ("id", "organization", "state", "models", "begins", "expires", "kept in"):
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*_cells(line))
    console.print(table if table.rows else "There are no keys.", soft_wrap=True)


def _cells(line: KeyLine) -> Iterator[str]:
    yield escape(line.id)
    yield escape(line.organization)
    yield f"[{_STYLES[line.state]}]{line.state}[/]"
    yield escape("\n".join(line.models))
    yield f"{escape(line.begins)}…" if line.begins else ""
    yield line.expires or "never"
    yield escape(line.kept_in)


def _stored(row: KeyRow, now: float) -> KeyLine:
    return KeyLine(
        id=row.id,
        organization=row.organization,
        state="revoked" if row.revoked_at is not None else _state(row.expires_at, now),
        models=row.models,
        priority=row.priority,
        begins=row.prefix,
        created=utc(row.created_at),
        expires=None if row.expires_at is None else utc(row.expires_at),
        revoked=None if row.revoked_at is None else utc(row.revoked_at),
        kept_in="database",
    )


def _configured(organization: str, key: KeySettings, config: str, now: float) -> KeyLine:
    expires_at = None if key.expires is None else key.expires.timestamp()
    return KeyLine(
        id=key.id,
        organization=organization,
        state=_state(expires_at, now),
        models=key.models,
        priority=key.priority,
        begins=None,
        created=None,
        expires=None if expires_at is None else utc(expires_at),
        revoked=None,
        kept_in=config,
    )


def _state(expires_at: float | None, now: float) -> str:
    return "active" if expires_at is None or now < expires_at else "expired"
