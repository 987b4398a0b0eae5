"""From the bytes of a request to what it asks for: which path, which model, with which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from router.errors import InvalidJson
from router.fleet.catalog import Catalog
from router.openai import multipart
from router.openai.body import Fields, read_fields, require_model, splice
from router.openai.multipart import FormModel
from router.openai.paths import InferencePath

_NO_FIELDS = Fields()


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that clients may call: a row of the table of paths, or a named route.

    Attributes:
        path: how the engine knows it.
        model: of a named route; None where the body tells.
    """

    path: InferencePath
    model: str | None = None


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """What a request's body asks for.

    Attributes:
        path: how the engine knows it.
        model: full name, as engines know it.
        body: the client's bytes.
        fields: what was read of a JSON body; the defaults for a form.
        form: where the model is in a form; None for a JSON body.
    """

    path: InferencePath
    model: str
    body: bytes
    fields: Fields = _NO_FIELDS
    form: FormModel | None = None

    def with_changes(self, changes: Mapping[str, Any]) -> bytes:
        """The body to send: the client's own bytes, but for the model's full name and `changes`."""
        if self.form is not None:
            if self.form.model == self.model:
                return self.body
            return multipart.splice_model(self.body, self.form, self.model)
        if self.fields.model == self.model:
            return splice(self.body, changes) if changes else self.body
        return splice(self.body, {"model": self.model, **changes})

    def to_be_counted(self) -> bytes:
        """The body of a `/tokenize` request for the same prompt."""
        if self.path.kind == "completions":
            return msgspec.json.encode({"model": self.model, "prompt": self.fields.prompt})
        return self.with_changes({})


class Readable(Protocol):
    """The part of an exchange that is read here."""

    @property
    def body(self) -> bytes:
        """The whole body."""

    def header(self, name: bytes) -> str | None:
        """A header, by its name in lower case."""


def read(entry: Entry, request: Readable, catalog: Catalog) -> Wanted:
    """Read what routing and limits need, and resolve the model.

    Raises:
        RouterError: the body is not what the path takes, or the model is not one that is served.
    """
    body = request.body
    if entry.path.multipart:
        content_type = request.header(b"content-type") or ""
        form = multipart.read_model(body, content_type, required=entry.model is None)
        model = catalog.resolve(form.model if entry.model is None else entry.model)
        return Wanted(entry.path, model, body, form=form)
    if not body:
        raise InvalidJson("The request has no body; this path takes a JSON object.")
    fields = read_fields(body)
    asked = require_model(fields) if entry.model is None else entry.model
    return Wanted(entry.path, catalog.resolve(asked), body, fields)
