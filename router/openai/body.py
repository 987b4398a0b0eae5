"""Request bodies: read only what the router must know, change only by splicing.

The original bytes go on to the engine. A change replaces the bytes of one value and leaves every
other byte alone, so nothing is re-serialised and nothing unknown is lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from router.errors import BadRequest, InvalidJson, InvalidModel, InvalidValue, MissingModel

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# vLLM takes 8.0 and "8" for 8, and 1 and "true" for true (pydantic's lax mode), so these are read.
_Count = _Int64 | float | str | None
Flag = bool | int | float | str | None
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_LARGE_BYTES = 256 * 1024
_MAX_KEYS = 100_000
_MAX_TOP_LEVEL_KEYS = 1_000
_TO_COLON = re.compile(rb'(?:[^":]++|"(?:[^"\\]++|\\.)*+")*+:', re.DOTALL)
"""Up to the next colon that is not within a string."""
_DELIMITER = re.compile(rb"[ \t\r\n]*[,}]")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]++|\\.)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_NULL = msgspec.Raw(b"null")
_PUNCTUATION = len('"":,')
_encode = msgspec.json.encode


def is_true(flag: Flag) -> bool:
    """Whether vLLM takes a field for true."""
    return flag.strip().lower() in _TRUE if isinstance(flag, str) else flag == 1


class Fields(msgspec.Struct, frozen=True, gc=False):
    """The top-level fields that routing and limits need; all others are skipped, not built.

    Skipping keeps a 32 MiB body of `[[],[],...]` from becoming gigabytes of objects.
    """

    model: str | msgspec.UnsetType = msgspec.UNSET
    stream: Flag = None
    stream_options: msgspec.Raw = _NULL
    n: _Count = None
    max_tokens: _Count | msgspec.UnsetType = msgspec.UNSET
    min_tokens: _Count = None
    max_completion_tokens: _Count = None
    max_output_tokens: _Count = None
    best_of: _Count = None
    prompt: msgspec.Raw = _NULL
    prompt_embeds: msgspec.Raw = _NULL
    background: Flag = None
    previous_response_id: msgspec.Raw = _NULL
    instruction: msgspec.Raw = _NULL
    query: msgspec.Raw = _NULL
    queries: msgspec.Raw = _NULL
    text_1: msgspec.Raw = _NULL
    data_1: msgspec.Raw = _NULL
    documents: msgspec.Raw = _NULL
    items: msgspec.Raw = _NULL
    text_2: msgspec.Raw = _NULL
    data_2: msgspec.Raw = _NULL

    @property
    def streams(self) -> bool:
        """Whether a stream is asked for."""
        return is_true(self.stream)

    def count(self, name: str) -> int | None:
        """A field that counts, as vLLM reads it; None: the engine refuses it or uses its own.

        Args:
            name: `n`, `best_of` or one of the limits on tokens.
        """
        value = getattr(self, name)
        if type(value) is int:
            return value
        if value is None or value is msgspec.UNSET:
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return int(number) if number.is_integer() else None


_decoder = msgspec.json.Decoder(Fields)
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_fields(body: bytes) -> Fields:
    """Read `body`, which must be one JSON object in UTF-8.

    Raises:
        InvalidJson: not JSON, not an object, too deep, a lone surrogate, a top-level key twice, or
            very many of them.
        InvalidModel: `model` is not a string.
        InvalidValue: another field that the router reads has the wrong type or range.
    """
    try:
        fields = _decoder.decode(body)
        if not body.isascii():
            body.decode()  # what was skipped was not checked
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidJson("The request body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidJson("The request body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}.") from None
    if len(body) > _LARGE_BYTES:
        _check_keys(body)
    if not _is_compact(body):
        members(body)  # refuses a key that comes twice
    return fields


def _check_keys(body: bytes) -> None:
    """Refuse a large body of very many keys: to list them all would hold up everybody else."""
    if body.count(b":") <= _MAX_KEYS:
        return
    at = 0
    for _ in range(_MAX_KEYS + 1):
        found = _TO_COLON.match(body, at)
        if found is None:
            return
        at = found.end()
    raise InvalidJson(f"The request body has more than {_MAX_KEYS} keys.")


def _raw_values(body: bytes) -> dict[str, msgspec.Raw]:
    """Top-level key -> its value's bytes; nothing is built of a value."""
    try:
        return _raw_decoder.decode(body)
    except RecursionError:
        raise InvalidJson("The request body is nested too deeply.") from None


def _is_compact(body: bytes) -> bool:
    """Whether the lengths of the distinct keys and of their values add up to the whole body.

    Then there is neither space nor an escaped key between them, and no key twice. That is what
    most clients send, and it costs a fifth of finding every offset.

    Raises:
        InvalidJson: they are far more than any path knows.
    """
    found = _raw_values(body)
    if len(found) > _MAX_TOP_LEVEL_KEYS:
        raise InvalidJson(
            f"The request body has more than {_MAX_TOP_LEVEL_KEYS} keys at its top level."
        )
    size = sum(map(len, found)) + sum(map(len, found.values()))
    return 1 + size + _PUNCTUATION * len(found) == len(body)


def _bad_field(reason: str) -> BadRequest:
    """The error for a field of the wrong type; msgspec ends its reason with "at `$.name`"."""
    what, _, where = reason.partition(" - at `$.")
    name = where.removesuffix("`").partition("[")[0]
    if not name:
        return InvalidJson("The request body must be a JSON object.")
    if name == "model":
        return InvalidModel("`model` must be a non-empty string.", param="model")
    return InvalidValue(f"`{name}` is not valid: {what}.", param=name)


def require_model(fields: Fields) -> str:
    """The model's name as the client wrote it.

    Raises:
        MissingModel: the body has no `model`.
        InvalidModel: it is empty.
    """
    model = fields.model
    if model is msgspec.UNSET:
        raise MissingModel("The request body must name a `model`.", param="model")
    if not model:
        raise InvalidModel("`model` must be a non-empty string.", param="model")
    return model


@dataclass(frozen=True, slots=True)
class Members:
    """Where the top-level values of a JSON object are, as byte offsets.

    Attributes:
        spans: key -> (start, end) of its value.
        closing: offset of the closing brace.
    """

    spans: dict[str, tuple[int, int]]
    closing: int


def members(body: bytes) -> Members:
    """Find every top-level value of `body`, which `read_fields` has accepted.

    msgspec gives keys in their order and each value's bytes, so a walk over the keys alone yields
    every offset, and no value is built. A key that comes twice breaks the order and is refused:
    which of the two counts would be the engine's whim.

    Raises:
        InvalidJson: a top-level key is there twice.
    """
    spans: dict[str, tuple[int, int]] = {}
    at = body.index(b"{")
    for name, raw in _raw_values(body).items():
        key = _KEY.match(body, at + 1)
        if key is None or msgspec.json.decode(key[1]) != name:
            raise _twice(name)
        start, end = key.end(), key.end() + len(raw)
        after = _DELIMITER.match(body, end)
        if after is None or memoryview(body)[start:end] != memoryview(raw):
            raise _twice(name)
        spans[name] = (start, end)
        at = after.end() - 1
    if spans and body[at] != ord("}"):
        raise _twice("")
    return Members(spans, body.index(b"}", at))


def _twice(name: str) -> InvalidJson:
    which = f" (at or after `{name[:64]}`)" if name else ""
    return InvalidJson(f"The request body has a top-level key twice{which}.")


def splice(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return `body` with the top-level keys of `changes` set to their new values.

    A key that is there has its value's bytes replaced; one that is not is put before the closing
    brace. Every other byte stays as it was.
    """
    found = members(body)
    edits: list[tuple[int, int, bytes]] = []
    added: list[bytes] = []
    for name, value in changes.items():
        span = found.spans.get(name)
        if span is None:
            added.append(_encode(name) + b":" + _encode(value))
        else:
            edits.append((*span, _encode(value)))
    if added:
        separator = b"," if found.spans else b""
        edits.append((found.closing, found.closing, separator + b",".join(added)))
    pieces: list[bytes] = []
    at = 0
    for start, end, written in sorted(edits):
        pieces += (body[at:start], written)
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)
