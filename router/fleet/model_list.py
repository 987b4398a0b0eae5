"""What an engine's answer to `/v1/models` means for a service, as it is configured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from router.model import ModelCard, ServiceSpec

NO_SUCH_PAGE = frozenset({404, 405, 501})
"""What an engine answers that has no such page."""
_MOST_NAMES = 5
_LARGEST_CONTEXT = 2**31
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Listing:
    """What an answer to `/v1/models` says of a service.

    Attributes:
        cards: the models it lists, at least one; None where it lists none.
        fault: why the service cannot be used; None: it can.
        mismatch: what does not fit the configuration, and is no fault; None: nothing.
    """

    cards: tuple[ModelCard, ...] | None = None
    fault: str | None = None
    mismatch: str | None = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_decode_list = msgspec.json.Decoder(_List).decode


def judge(spec: ServiceSpec, status: int, body: bytes | None) -> Listing:
    """Whether a service can be used, after its answer to `/v1/models`.

    Where its models are configured the list is not needed: only a key that is refused, and a 200
    that is no JSON, as of a page that stands in for the engine, tell against the service.

    Args:
        spec: the service as configured.
        status: of the answer.
        body: of the answer; None where it is too long to be read.
    """
    if status == 401 or (status == 403 and not spec.models):
        wrong = "not the right one" if spec.api_key else "missing"
        return Listing(fault=f"/v1/models answered {status}: its api_key is {wrong}")
    if status in NO_SUCH_PAGE and spec.models:
        return Listing()
    no_list = f"/v1/models (status {status}) gives no list of models"
    cards = None
    try:
        if status == 200 and body is not None:
            cards = tuple(parse_cards(body))
    except (msgspec.ValidationError, RecursionError):
        pass  # JSON, but of another shape
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Listing(fault=f"{no_list}, and no JSON")
    if spec.models:
        differs = no_list if cards is None else mismatch(spec.models, cards)
        return Listing(cards or None, mismatch=differs)
    if cards:
        return Listing(cards)
    fault = no_list if cards is None else "/v1/models lists no model"
    helps = cards is not None or status in NO_SUCH_PAGE
    return Listing(fault=f"{fault}: name them in `models`" if helps else fault)


def parse_cards(body: bytes) -> Iterator[ModelCard]:
    """The rows of a `/v1/models` answer; rows that name no model are passed over.

    Raises:
        msgspec.ValidationError: JSON, but no such answer.
        msgspec.DecodeError: no JSON.
        UnicodeDecodeError: no JSON: not UTF-8.
        RecursionError: nested too deeply.
    """
    rows = [row for raw in _decode_list(body).data if (row := _row(raw)) is not None]
    lengths = {row["id"]: _length(row) for row in rows}
    for row in rows:
        parent = row.get("parent")
        # An adapter has its base model's context.
        inherited = lengths.get(parent) if isinstance(parent, str) else None
        yield ModelCard(row["id"], _length(row) or inherited, row)


def _row(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None


def _length(row: dict[str, Any]) -> int | None:
    """Its context, where that is one: what a request may cost is worked out from it."""
    length = row.get("max_model_len")
    if not isinstance(length, int) or isinstance(length, bool):
        return None
    return length if 0 < length <= _LARGEST_CONTEXT else None


def mismatch(configured: Sequence[str], cards: Sequence[ModelCard]) -> str | None:
    """Which configured models an engine does not list, and what it lists; None: it lists all.

    That is no proof that it does not serve them: adapters may be loaded when they are asked for.
    """
    listed = [card.id for card in cards]
    absent = [model for model in configured if model not in listed]
    if not absent:
        return None
    return f"does not serve {_some(absent)}; it lists: {_some(listed) or 'nothing'}"


def _some(names: Sequence[str]) -> str:
    """A few of the names, none too long: an engine may list whatever it likes."""
    shown = ", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
