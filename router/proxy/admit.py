"""From the bytes of a request to a call that may be sent: what is asked, of which model."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from router.errors import BadRequest
from router.fleet.catalog import Catalog
from router.openai import multipart
from router.openai.body import read_fields, require_model, splice
from router.openai.paths import InferencePath


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request's body asks for, ready to be sent.

    Attributes:
        model: full name, as engines know it.
        body: the client's bytes, with `model` spliced where it was an alias or a short name.
        streams: the client asked for a stream.
    """

    model: str
    body: bytes
    streams: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that clients may call: a row of the table of paths, or a named route.

    Attributes:
        path: how the engine knows it.
        model: of a named route; None where the body tells.
    """

    path: InferencePath
    model: str | None = None


def read(entry: Entry, body: bytes, content_type: str, catalog: Catalog) -> Wanted:
    """Read what routing needs, and resolve the model.

    Raises:
        RouterError: the body is not what the path takes, or the model is not one that is served.
    """
    if entry.path.multipart:
        return _read_form(entry, body, content_type, catalog)
    if not body:
        raise BadRequest("The request has no body; this path takes a JSON object.")
    fields = read_fields(body)
    asked = entry.model if entry.model is not None else require_model(fields)
    model = catalog.resolve(asked)
    if fields.model is msgspec.UNSET or fields.model != model:
        body = splice(body, {"model": model})
    return Wanted(model, body, bool(fields.stream))


def _read_form(entry: Entry, body: bytes, content_type: str, catalog: Catalog) -> Wanted:
    found = multipart.read_model(body, content_type)
    model = catalog.resolve(entry.model if entry.model is not None else found.model)
    if model != found.model:
        body = multipart.splice_model(body, found, model)
    return Wanted(model, body, streams=False)
