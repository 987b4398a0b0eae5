"""How `router top` looks: a picture and what the keys have set, as tables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.cli.top_source import Picture

Row = Mapping[str, Any]
_COLOURS = {
    "healthy": "green",
    "loading": "cyan",
    "sleeping": "blue",
    "draining": "yellow",
    "ejected": "red",
    "unhealthy": "bold red",
}
_RANKS = {state: rank for rank, state in enumerate(reversed(_COLOURS))}
_FRAME_LINES = 6
"""Title, head of the table and its line, the last line, and room for an error."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of services.

    Attributes:
        title: its head, and its name for `--sort`.
        key: that sorts by it.
        value: what is compared; numbers are shown with the largest first.
        cell: what is shown.
        left: it is text.
    """

    title: str
    key: str
    value: Callable[[Row], Any]
    cell: Callable[[Row], str]
    left: bool = False


def _number(name: str, form: str = ",d") -> tuple[Callable[[Row], Any], Callable[[Row], str]]:
    return lambda row: row.get(name) or 0, lambda row: format(row.get(name) or 0, form)


def _text(name: str) -> tuple[Callable[[Row], Any], Callable[[Row], str]]:
    return lambda row: str(row.get(name) or ""), lambda row: printable(row.get(name) or "")


def _models(row: Row) -> str:
    return ", ".join(printable(model).rpartition("/")[2] for model in row.get("models", ()))


def _in_flight(row: Row) -> str:
    limit = row.get("max_concurrency")
    return f"{row.get('in_flight', 0)}" + (f"/{limit}" if limit is not None else "")


COLUMNS = (
    Column("service", "n", *_text("name"), left=True),
    Column(
        "state",
        "s",
        lambda row: _RANKS.get(str(row.get("state")), -1),
        lambda row: printable(row.get("state", "")),
        left=True,
    ),
    Column("gpu", "g", *_text("gpu"), left=True),
    Column("model", "m", _models, _models, left=True),
    Column("in flight", "f", lambda row: row.get("in_flight") or 0, _in_flight),
    Column("queued", "w", *_number("queued")),
    Column("tok/s", "t", *_number("tokens_per_second", ",.1f")),
    Column("ttft s", "l", *_number("ttft", ".3f")),
    Column("time s", "d", *_number("response_time", ".3f")),
    Column("requests", "r", *_number("request_count")),
    Column("errors", "e", *_number("error_count")),
    Column("prompt tok", "p", *_number("prompt_tokens")),
    Column("answer tok", "c", *_number("completion_tokens")),
)
TITLES = tuple(column.title for column in COLUMNS)


@dataclass(frozen=True, slots=True)
class View:
    """What the keys have set.

    Attributes:
        column: that is sorted by, its place in `COLUMNS`.
        is_reversed: the other way round than usual.
        top: rows that are scrolled past.
        error: why there is no newer picture; None while there is.
    """

    column: int = 0
    is_reversed: bool = False
    top: int = 0
    error: str | None = None


def pressed(view: View, key: str) -> View:
    """What a key changes: a column's letter, an arrow, `-`; others change nothing."""
    for place, column in enumerate(COLUMNS):
        if key == column.key:
            again = place == view.column
            return replace(view, column=place, is_reversed=again and not view.is_reversed, top=0)
    if key in {"left", "right"}:
        step = 1 if key == "right" else -1
        return replace(view, column=(view.column + step) % len(COLUMNS), is_reversed=False, top=0)
    if key in {"up", "down"}:
        return replace(view, top=max(0, view.top + (1 if key == "down" else -1)))
    return replace(view, is_reversed=not view.is_reversed) if key == "-" else view


def in_order(services: Picture, view: View) -> list[Row]:
    """The services, sorted: text from A, numbers from the largest, troubled states first."""
    column = COLUMNS[view.column]
    descending = column.left is view.is_reversed
    by_name = sorted(services.services, key=lambda row: str(row.get("name")))
    return sorted(by_name, key=column.value, reverse=descending)


def printable(value: object) -> str:
    """Text without control characters: names of models are an engine's words, not a terminal's."""
    return "".join(
        sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(value)
    )


def render(picture: Picture, view: View, *, url: str, height: int | None) -> RenderableType:
    """Everything.

    Args:
        picture: to show.
        view: how.
        url: whom it was asked of.
        height: lines of the terminal; None: as many as it takes, and no keys.
    """
    organizations = picture.organizations
    below = 0 if not organizations else len(organizations) + 3
    rows = in_order(picture, view)
    shown = rows
    if height is not None:
        room = max(1, height - _FRAME_LINES - below)
        start = min(view.top, max(0, len(rows) - room))
        shown = rows[start : start + room]
    parts: list[RenderableType] = [_title(picture, url), _services(shown, view)]
    if len(shown) < len(rows):
        parts.append(Text(f"{len(shown)} of {len(rows)} services; arrows up and down", "dim"))
    if organizations:
        parts.append(_organizations(organizations))
    if view.error is not None:
        parts.append(Text(f"Not up to date: {printable(view.error)}", "bold red"))
    if height is not None:
        parts.append(_help())
    return Group(*parts)


def _title(picture: Picture, url: str) -> Text:
    minutes, seconds = divmod(int(picture.uptime_s), 60)
    hours, minutes = divmod(minutes, 60)
    title = Text("router ", "bold")
    title.append(printable(url))
    colour = "green" if picture.healthy == len(picture.services) else "bold red"
    title.append(f"  {picture.healthy}/{len(picture.services)} healthy", colour)
    title.append(f"  up {hours}:{minutes:02}:{seconds:02}", "dim")
    return title


def _services(rows: list[Row], view: View) -> Table:
    table = Table(box=None, expand=False, pad_edge=False, header_style="bold")
    for place, column in enumerate(COLUMNS):
        mark = ("▲" if column.left is not view.is_reversed else "▼") if place == view.column else ""
        table.add_column(
            f"{column.title}{mark}",
            justify="left" if column.left else "right",
            no_wrap=True,
            overflow="ellipsis",
            max_width=28 if column.left else None,
        )
    table.add_column("last error", no_wrap=True, overflow="ellipsis")
    for row in rows:
        cells = [Text(column.cell(row)) for column in COLUMNS]
        cells[1].stylize(_COLOURS.get(str(row.get("state")), ""))
        troubled = row.get("last_error") and row.get("state") != "healthy"
        table.add_row(*cells, Text(printable(row["last_error"]) if troubled else "", "dim"))
    return table


def _organizations(rows: Any) -> Table:  # noqa: ANN401 - rows of a page
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\norganization", no_wrap=True)
    for title in ("tokens today", "of", "tokens this month", "of", "requests today", "of"):
        table.add_column(f"\n{title}", justify="right", no_wrap=True)
    for row in rows:
        limits = row["limits"]
        table.add_row(
            Text(printable(row["id"])),
            *_used(row["tokens_today"], limits["daily_tokens"]),
            *_used(row["tokens_month"], limits["monthly_tokens"]),
            *_used(row["requests_today"], limits["daily_requests"]),
        )
    return table


def _used(used: int, limit: int | None) -> tuple[Text, Text]:
    share = used / limit if limit else 0.0
    colour = "bold red" if share >= 1 else "yellow" if share >= 0.9 else ""
    told = "no limit" if limit is None else f"{limit:,} {share:4.0%}"
    return Text(f"{used:,}", colour), Text(told, colour or "dim")


def _help() -> Text:
    keys = "  ".join(f"{column.key} {column.title}" for column in COLUMNS)
    return Text(f"sort: {keys}  - reverse  q quit", "dim", no_wrap=True, overflow="ellipsis")
