"""The router's own errors, rendered once for every dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from router.errors import RouterError
from router.openai.paths import Dialect

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_encode = msgspec.json.encode


def error_object(error: RouterError, dialect: Dialect) -> dict[str, Any]:
    """The JSON object that tells `error`; Anthropic's form keeps `code` as an extra field."""
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        inner = {"type": kind, "message": error.message, "code": error.code}
        return {"type": "error", "error": inner}
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_body(error: RouterError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """The body of an error answer, as JSON."""
    return _encode(error_object(error, dialect))


def error_event(error: RouterError, dialect: Dialect, number: int) -> bytes:
    """The one event that ends a broken stream.

    It opens with an empty line: what broke may have broken inside an event, and the error must
    not become part of its data. Events of responses are numbered; this is the next.
    """
    if dialect is Dialect.ANTHROPIC:
        payload: dict[str, Any] = error_object(error, dialect)
    elif dialect is Dialect.RESPONSES:
        payload = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": None,
            "sequence_number": number,
        }
    else:
        return b"\n\ndata: " + _encode(error_object(error, dialect)) + b"\n\n"
    return b"\n\nevent: error\ndata: " + _encode(payload) + b"\n\n"
