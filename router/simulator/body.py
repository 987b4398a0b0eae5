"""Reading a request's JSON: the object, and typed looks into it with vLLM's complaints."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web

from router.simulator.errors import UnreadableBody, ValidationError, invalid, missing

Body = dict[str, Any]
_MAX_DIGITS = 20


async def read_json(request: web.Request) -> Body:
    """The request's JSON object.

    Raises:
        ValidationError: wrong content type, no body, bad JSON, not an object.
        UnreadableBody: not UTF-8, too deep, numbers beyond reason.
    """
    if request.content_type != "application/json" or "Content-Type" not in request.headers:
        raise ValidationError("Unsupported Media Type: Only 'application/json' is allowed")
    return parse_object(await request.read())


def parse_object(raw: bytes) -> Body:
    """The JSON object in these bytes; raises as `read_json` does."""
    if not raw:
        raise missing("body", None)
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        loc = f"body.{error.pos}"
        raise invalid("json_invalid", loc, "JSON decode error", {}, error=error.msg) from None
    except (ValueError, RecursionError):
        raise UnreadableBody from None
    if value is None:
        raise missing("body", None)
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", message, value)
    return value


def integer(body: Body, name: str) -> int | None:
    """An integer field, None where it is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        if value.isascii() and len(value) <= _MAX_DIGITS and value.removeprefix("-").isdigit():
            return int(value)
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid("int_parsing", f"body.{name}", message, value)
    raise invalid("int_type", f"body.{name}", "Input should be a valid integer", value)


def number(body: Body, name: str) -> float | None:
    """A numeric field, None where it is absent or null; may be NaN or infinite."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise invalid("float_type", f"body.{name}", "Input should be a valid number", value)


def string(body: Body, name: str) -> str | None:
    """A string field, None where it is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise invalid("string_type", f"body.{name}", "Input should be a valid string", value)


def flag(body: Body, name: str) -> bool:
    """A boolean field, False where it is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    message = "Input should be a valid boolean, unable to interpret input"
    raise invalid("bool_parsing", f"body.{name}", message, value)


def array(body: Body, name: str) -> list[Any] | None:
    """A list field, None where it is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, list):
        return value
    raise invalid("list_type", f"body.{name}", "Input should be a valid list", value)


def mapping(body: Body, name: str) -> Body | None:
    """An object field, None where it is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise invalid("dict_type", f"body.{name}", "Input should be a valid dictionary", value)
