"""How `router top` looks: a picture and what the keys have set, as tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.cli.top_columns import (
    COLOURS,
    COLUMNS,
    LONGEST_TEXT,
    Column,
    Fitted,
    Row,
    fit,
    last_error,
    printable,
)
from router.cli.top_source import Picture

_FRAME_LINES = 7
"""Title, head of the table and its line, the last line, and room for an error and a hint."""
_NO_ADMIN = "The key that was sent is not this router's admin key: organizations are not shown."


@dataclass(frozen=True, slots=True)
class View:
    """What the keys have set.

    Attributes:
        column: that is sorted by, its place in `COLUMNS`.
        is_reversed: the other way round than usual.
        top: rows that are scrolled past.
        error: why there is no newer picture; None while there is.
        has_key: a key was sent, which is to be the admin key.
    """

    column: int = 0
    is_reversed: bool = False
    top: int = 0
    error: str | None = None
    has_key: bool = False


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


def render(
    picture: Picture, view: View, *, url: str, width: int, height: int | None
) -> RenderableType:
    """Everything.

    Args:
        picture: to show.
        view: how.
        url: whom it was asked of.
        width: columns of the terminal.
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
    fitted = fit(rows, view.column, width)
    parts: list[RenderableType] = [_title(picture, url), _services(shown, view, fitted)]
    if len(shown) < len(rows):
        parts.append(_line(f"{len(shown)} of {len(rows)} services; arrows up and down", "dim"))
    if organizations:
        parts.append(_organizations(organizations, width))
    elif organizations is None and view.has_key:
        parts.append(_line(_NO_ADMIN, "bold red"))
    if view.error is not None:
        parts.append(_line(f"Not up to date: {printable(view.error)}", "bold red"))
    if height is not None:
        parts.append(_help())
    return Group(*parts)


def _line(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _title(picture: Picture, url: str) -> Text:
    minutes, seconds = divmod(int(picture.uptime_s), 60)
    hours, minutes = divmod(minutes, 60)
    title = Text("router ", "bold", no_wrap=True, overflow="ellipsis")
    colour = "green" if picture.healthy == len(picture.services) else "bold red"
    title.append(f"{picture.healthy}/{len(picture.services)} healthy", colour)
    title.append(f"  up {hours}:{minutes:02}:{seconds:02}  ", "dim")
    title.append(printable(url))
    return title


# -- services ----------------------------------------------------------------------------------


def _services(rows: list[Row], view: View, fitted: Fitted) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, fitted.gap, 0, 0))
    for place, width in fitted.columns.items():
        column = COLUMNS[place]
        mark = ("▲" if column.left is not view.is_reversed else "▼") if place == view.column else ""
        table.add_column(
            f"{column.title}{mark}",
            justify="left" if column.left else "right",
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    if fitted.error:
        table.add_column("last error", no_wrap=True, overflow="ellipsis", width=fitted.error)
    for row in rows:
        cells = [_cell(COLUMNS[place], row) for place in fitted.columns]
        if fitted.error:
            cells.append(Text(last_error(row), "dim"))
        table.add_row(*cells)
    return table


def _cell(column: Column, row: Row) -> Text:
    style = COLOURS.get(str(row.get("state")), "") if column.title == "state" else ""
    return Text(column.cell(row), style)


# -- organizations -----------------------------------------------------------------------------

_WINDOWS = (
    ("tokens today", "tokens_today", "daily_tokens"),
    ("tokens this month", "tokens_month", "monthly_tokens"),
    ("requests today", "requests_today", "daily_requests"),
)


def _organizations(rows: Any, width: int) -> Table:  # noqa: ANN401 - rows of a page
    """With the limits where there is room for them; else only with the shares that are used."""
    whole = _organizations_table(rows, with_limits=True)
    if Console(width=1000).measure(whole).maximum <= width:
        return whole
    return _organizations_table(rows, with_limits=False)


def _organizations_table(rows: Any, *, with_limits: bool) -> Table:  # noqa: ANN401 - as above
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\norganization", no_wrap=True, overflow="ellipsis", max_width=LONGEST_TEXT)
    for title, _, _ in _WINDOWS:
        table.add_column(f"\n{title}", justify="right", no_wrap=True)
        table.add_column("\nof" if with_limits else "\n", justify="right", no_wrap=True)
    for row in rows:
        cells = [Text(printable(row["id"]))]
        for _, used, limit in _WINDOWS:
            cells += _used(row[used], row["limits"][limit], with_limit=with_limits)
        table.add_row(*cells)
    return table


def _used(used: int, limit: int | None, *, with_limit: bool) -> tuple[Text, Text]:
    share = used / limit if limit else 0.0
    colour = "bold red" if share >= 1 else "yellow" if share >= 0.9 else ""
    if limit is None:
        told = "no limit" if with_limit else ""
    else:
        told = f"{limit:,} {share:4.0%}" if with_limit else f"{share:4.0%}"
    return Text(f"{used:,}", colour), Text(told, colour or "dim")


def _help() -> Text:
    keys = "  ".join(f"{column.key} {column.title}" for column in COLUMNS)
    return _line(f"q quit  - reverse  sort: {keys}", "dim")
