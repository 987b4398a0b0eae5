"""Multipart forms (RFC 7578): find the `model` part, and replace its value byte for byte.

The form goes on as it came; audio is never decoded or copied more than once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.errors import BadRequest, InvalidModel, MissingModel

_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(
    rb'^content-disposition:[^\r\n]*;\s*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE
)
_MAX_PARTS = 64
_MAX_MODEL_BYTES = 512


@dataclass(frozen=True, slots=True)
class FormModel:
    """The form's `model` and where its bytes are."""

    model: str
    start: int
    end: int


def read_model(body: bytes, content_type: str) -> FormModel:
    """Find the form field `model`.

    Raises:
        BadRequest: not a multipart form, or one that is cut short or has too many parts.
        MissingModel: no part is named `model`.
        InvalidModel: it is empty, too long, not UTF-8, or there twice.
    """
    found: FormModel | None = None
    for headers, start, end in _parts(body, _delimiter(content_type)):
        name = _NAME.search(headers)
        if name is None or name[1] != b"model":
            continue
        if found is not None:
            raise InvalidModel("The form has the field `model` twice.", param="model")
        found = FormModel(_text(body[start:end]), start, end)
    if found is None:
        raise MissingModel("The form must have a field `model`.", param="model")
    return found


def splice_model(body: bytes, found: FormModel, model: str) -> bytes:
    """`body` with another value for the field `model`."""
    return b"".join((body[: found.start], model.encode(), body[found.end :]))


def _delimiter(content_type: str) -> bytes:
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise BadRequest("This path takes a form: multipart/form-data with a boundary.")
    return b"--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, int, int]]:
    """(headers, start, end) of each part's content."""
    if not body.startswith(delimiter):
        raise BadRequest("The form does not begin with its boundary.")
    parts: list[tuple[bytes, int, int]] = []
    at = len(delimiter)
    while not body.startswith(b"--", at):
        head_end = body.find(b"\r\n\r\n", at)
        end = body.find(b"\r\n" + delimiter, head_end)
        if head_end < 0 or end < 0:
            raise BadRequest("The form ends before its closing boundary.")
        if len(parts) == _MAX_PARTS:
            raise BadRequest(f"The form has more than {_MAX_PARTS} parts.")
        start = min(head_end + 4, end)
        parts.append((body[at:head_end], start, end))
        at = end + 2 + len(delimiter)
    return parts


def _text(value: bytes) -> str:
    if not value.strip() or len(value) > _MAX_MODEL_BYTES:
        raise InvalidModel("`model` must be a non-empty string.", param="model")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidModel("`model` must be UTF-8.", param="model") from None
