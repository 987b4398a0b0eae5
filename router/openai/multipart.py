"""Multipart forms (RFC 7578): find the `model` part, and replace its value byte for byte.

The form goes on as it came; audio is never decoded or copied more than once. What one parser may
read otherwise than another is refused, because the engine must see the model that was checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.errors import BadRequest, InvalidModel, MissingModel

_PARAMETER = re.compile(r';\s*([^\s;="]+)=("(?:[^"\\]|\\.)*"|[^\s;"]+)\s*')
_BOUNDARY = re.compile(r"[ !#-~]{0,69}[!#-~]")
_MAX_PARTS = 64
_MAX_MODEL_BYTES = 512
_AMBIGUOUS = "The form has a part that can be read in more than one way."


@dataclass(frozen=True, slots=True)
class FormModel:
    """The form's `model` and where its bytes are.

    Attributes:
        model: empty where the form has none.
        start: offset of its value; without one, of the first delimiter.
        end: offset behind it.
        delimiter: two dashes and the boundary.
    """

    model: str
    start: int
    end: int
    delimiter: bytes


def read_model(body: bytes, content_type: str, *, required: bool = True) -> FormModel:
    """Find the form field `model`.

    Raises:
        BadRequest: not a multipart form, or one that is cut short, ambiguous or of too many parts.
        MissingModel: no part is named `model`, and it is required.
        InvalidModel: it is empty, too long, not UTF-8, or there twice.
    """
    delimiter = _delimiter(content_type)
    found: FormModel | None = None
    for headers, start, end in _parts(body, delimiter):
        if _name(headers) != "model":
            continue
        if found is not None:
            raise InvalidModel("The form has the field `model` twice.", param="model")
        found = FormModel(_text(body[start:end]), start, end, delimiter)
    if found is None and required:
        raise MissingModel("The form must have a field `model`.", param="model")
    return found or FormModel("", 0, 0, delimiter)


def splice_model(body: bytes, found: FormModel, model: str) -> bytes:
    """`body` with another value for the field `model`, or with the field where it had none."""
    value = model.encode()
    if not found.model:
        head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        return b"".join((found.delimiter, head, value, b"\r\n", body))
    return b"".join((body[: found.start], value, body[found.end :]))


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """A header's value taken apart: (what comes first, in lower case; name -> value).

    Raises:
        BadRequest: it is not plainly of that form, or a parameter comes twice.
    """
    first, semicolon, _ = value.partition(";")
    rest = value[len(first) :].strip() if semicolon else ""
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        parameter = _PARAMETER.match(rest, at)
        if parameter is None or parameter[1].lower() in found:
            raise BadRequest(_AMBIGUOUS)
        found[parameter[1].lower()] = parameter[2]
        at = parameter.end()
    return first.strip().lower(), found


def _delimiter(content_type: str) -> bytes:
    kind, parameters = _parameters(content_type)
    boundary = parameters.get("boundary", "").removeprefix('"').removesuffix('"')
    if kind != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
        raise BadRequest("This path takes a form: multipart/form-data with a boundary.")
    return b"--" + boundary.encode()


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, int, int]]:
    """(headers, start, end) of each part's content."""
    if not body.startswith(delimiter):
        raise BadRequest("The form does not begin with its boundary.")
    parts: list[tuple[bytes, int, int]] = []
    at = len(delimiter)
    while not body.startswith(b"--", at):
        if not body.startswith(b"\r\n", at):
            raise BadRequest(_AMBIGUOUS)
        head_end = body.find(b"\r\n\r\n", at)
        end = body.find(b"\r\n" + delimiter, head_end + 2)
        if head_end < 0 or end < 0:
            raise BadRequest("The form ends before its closing boundary.")
        if len(parts) == _MAX_PARTS:
            raise BadRequest(f"The form has more than {_MAX_PARTS} parts.")
        parts.append((body[at + 2 : head_end], min(head_end + 4, end), end))
        at = end + 2 + len(delimiter)
    return parts  # what follows the closing boundary is no part (RFC 2046, section 5.1.1)


def _name(headers: bytes) -> str:
    """The field's name, of the one `Content-Disposition` that a part may have."""
    dispositions = [
        line.partition(b":")[2]
        for line in headers.split(b"\r\n")
        if line.partition(b":")[0].strip().lower() == b"content-disposition"
    ]
    if not dispositions:
        return ""
    if len(dispositions) > 1:
        raise BadRequest(_AMBIGUOUS)
    kind, parameters = _parameters(dispositions[0].decode("utf-8", "surrogateescape").strip())
    name = parameters.get("name", "")
    if kind != "form-data" or not name or "name*" in parameters or "\\" in name:
        raise BadRequest(_AMBIGUOUS)
    return name.removeprefix('"').removesuffix('"')


def _text(value: bytes) -> str:
    if not value.strip() or len(value) > _MAX_MODEL_BYTES:
        raise InvalidModel("`model` must be a non-empty string.", param="model")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidModel("`model` must be UTF-8.", param="model") from None
