"""What an engine's `/v1/models` tells, and how that differs from what is configured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from router.model import ModelCard

_MOST_NAMES = 5
_LONGEST_NAME = 100


class _Row(msgspec.Struct):
    """The part of a `/v1/models` row that the router acts on."""

    id: str
    max_model_len: int | None = None
    parent: str | None = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_row = msgspec.json.Decoder(_Row).decode


def parse_cards(body: bytes) -> Iterable[ModelCard]:
    """The rows of a `/v1/models` answer.

    Raises:
        msgspec.MsgspecError: not such an answer.
    """
    raws = _decode_list(body).data
    rows = [_decode_row(raw) for raw in raws]
    lengths = {row.id: row.max_model_len for row in rows}
    for raw, row in zip(raws, rows, strict=True):
        # An adapter has its base model's context.
        length = row.max_model_len or lengths.get(row.parent or "")
        yield ModelCard(row.id, length, msgspec.json.decode(raw))


def mismatch(configured: Sequence[str] | None, cards: Sequence[ModelCard]) -> str | None:
    """Which configured models an engine does not list, and what it lists; None: it lists all.

    That is no proof that it does not serve them: adapters may be loaded when they are asked for.
    """
    listed = [card.id for card in cards]
    absent = [model for model in configured or () if model not in listed]
    if not absent:
        return None
    return f"does not serve {_some(absent)}; it lists: {_some(listed) or 'nothing'}"


def _some(names: Sequence[str]) -> str:
    """A few of the names, none too long: an engine may list whatever it likes."""
    shown = ", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
