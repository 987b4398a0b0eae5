"""The columns of `router top`'s table of services, and which of them fit into a terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

Row = Mapping[str, Any]
LONGEST_TEXT = 28
COLOURS = {
    "healthy": "green",
    "loading": "cyan",
    "sleeping": "blue",
    "draining": "yellow",
    "ejected": "red",
    "unhealthy": "bold red",
}
_RANKS = {state: rank for rank, state in enumerate(reversed(COLOURS))}
_ERROR_LEAST = 20
_LEAST_FIRST = (
    "prompt tok", "answer tok", "gpu", "time s", "ttft s", "requests", "model", "errors", "tok/s",
    "queued", "in flight",
)  # fmt: skip
"""What is left out where the terminal is too narrow, in this order; name and state never are."""


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


def printable(value: object) -> str:
    """Text without control characters: names of models are an engine's words, not a terminal's."""
    return "".join(
        sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(value)
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What of the table of services fits into a terminal.

    Attributes:
        columns: that are shown, places in `COLUMNS` and how wide each is.
        gap: blanks between two columns.
        error: width of the last error; 0: it is left out.
    """

    columns: Mapping[int, int]
    gap: int
    error: int


def fit(rows: Sequence[Row], sorted_by: int, width: int) -> Fitted:
    """Choose columns for a terminal of `width`.

    Each is as wide as its longest cell, so no figure is ever cut. Where there are too many, the
    least important are left out, but not the one that is sorted by; the last error gets the rest.
    """
    widths = {place: _width(column, rows) for place, column in enumerate(COLUMNS)}
    widths[sorted_by] = max(widths[sorted_by], len(COLUMNS[sorted_by].title) + len("▲"))
    longest = max((cell_len(last_error(row)) for row in rows), default=0)
    wanted = max(longest, len("last error")) if longest else 0
    gap = 2 if sum(widths.values()) + 2 * len(widths) + wanted <= width else 1
    spare = [place for title in _LEAST_FIRST if (place := TITLES.index(title)) != sorted_by]
    while spare and _room(widths, gap, width) < min(wanted, _ERROR_LEAST):
        del widths[spare.pop(0)]
    return Fitted(widths, gap, max(0, min(wanted, _room(widths, gap, width))))


def _room(widths: Mapping[int, int], gap: int, width: int) -> int:
    """Columns of the terminal that are left beside these; negative where they do not fit."""
    return width - sum(widths.values()) - gap * len(widths)


def _width(column: Column, rows: Sequence[Row]) -> int:
    widest = max((cell_len(column.cell(row)) for row in rows), default=0)
    if column.left:
        widest = min(widest, LONGEST_TEXT)
    return max(widest, len(column.title))


def last_error(row: Row) -> str:
    """What is wrong with a service that is not healthy; of a healthy one nothing."""
    troubled = row.get("last_error") and row.get("state") != "healthy"
    return printable(row["last_error"]) if troubled else ""
