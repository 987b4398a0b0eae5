"""Settings as a plain tree that may be kept and compared: a secret is its SHA-256 there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from router.config.problems import Location
from router.config.schema import is_secret
from router.config.settings import Section, Settings

Form = str | int | float | bool | list["Form"] | dict[str, "Form"] | None


def redacted(settings: Settings) -> dict[str, Form]:
    """Every value of the settings as JSON has it; equal for equal settings, and only for them."""
    return {name: _form(getattr(settings, name), (name,)) for name in Settings.model_fields}


def _form(value: object, location: Location) -> Form:
    if value is not None and (is_secret(location) or isinstance(value, SecretStr)):
        return _digest(value)
    if isinstance(value, Section):
        names = type(value).model_fields
        return {name: _form(getattr(value, name), (*location, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _form(item, (*location, str(key))) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_form(item, (*location, index)) for index, item in enumerate(value)]
    form: Form = to_jsonable_python(value)
    return form


def _digest(value: object) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
