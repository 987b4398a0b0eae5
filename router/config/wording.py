"""What pydantic found, in an operator's words: what is wrong and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from router.config.problems import Location
from router.config.schema import has_default, is_secret, known_keys

_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:[_,' ][0-9]{3})+")
_MESSAGES = {
    "string_type": "must be a text; write it in quotes",
    "path_type": "must be a text: a path",
    "int_type": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false, without quotes",
    "model_type": "must be a mapping: lines of `key: value` below it",
    "dict_type": "must be a mapping: lines of `key: value` below it",
    "mapping_type": "must be a mapping: lines of `key: value` below it",
    "tuple_type": "must be a list: lines of `- value` below it, or [value, value]",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length}; leave it out for its default",
    "too_long": "must have at most {max_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be of printable ASCII characters without spaces",
    "value_error": "{error}",
}
# What is as good as a value, by whether there is a default.
_INSTEAD = {True: ", or leave the key out for its default", False: "", None: ", or remove it"}


def location_of(error: ErrorDetails) -> Location:
    """Find the place of an error in the file; pydantic marks a wrong key of a mapping `[key]`."""
    location = error["loc"]
    return location[:-1] if location and location[-1] == "[key]" else location


def message_of(error: ErrorDetails, *, show_value: bool) -> str:
    """Say what is wrong at `location_of(error)`; a secret is never shown."""
    location, kind = location_of(error), error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind == "missing":
        return _missing_key(location)
    if error["input"] is None:
        return f"is empty; write a value{_INSTEAD[has_default(location)]}"
    if kind in {"int_type", "float_type"} and show_value and _is_grouped(error["input"]):
        digits = _digits(error["input"])
        return f"must be a number without signs between its digits; write {digits}"
    template = _MESSAGES.get(kind)
    message = error["msg"] if template is None else _fill(template, error.get("ctx", {}))
    if kind == "value_error" or not show_value or is_secret(location):
        return message
    return message + _shown(error["input"])


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that was most likely meant, if any comes close."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return matches[0] if matches else None


def _is_grouped(value: object) -> bool:
    return isinstance(value, str) and _GROUPED.fullmatch(value) is not None


def _digits(value: str) -> str:
    return value.translate({ord(sign): None for sign in "_,' "})


def _fill(template: str, context: Mapping[str, Any]) -> str:
    return template.format_map(dict(context))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f" (it is {str(value).lower()})"
    if isinstance(value, int | float):
        return f" (it is {value})"
    if isinstance(value, str) and len(value) <= 40:
        return f" (it is {value!r})"
    return ""


def _unknown_key(location: Location) -> str:
    key = str(location[-1])
    if key == "<<":
        return "merge keys are not understood here; write the keys out"
    known = known_keys(location[:-1])
    meant = nearest(key, known)
    if meant is not None:
        return f"unknown key; did you mean {meant}?"
    return f"unknown key; known here: {', '.join(known)}"


def _missing_key(location: Location) -> str:
    key = str(location[-1])
    either = f" or {key}_file" if is_secret(location) else ""
    return f"is missing; write {key}{either}"
