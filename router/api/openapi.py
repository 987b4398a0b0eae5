"""`/openapi.json`: OpenAPI 3.1 for what the router itself answers, drawn from models and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from router.api import schema
from router.api.openapi_paths import OPERATIONS, Operation
from router.errors import RouterError

_JSON = "application/json"
_ABOUT = """One OpenAI-compatible endpoint in front of many vLLM servers.

This tells what the router itself answers. Inference paths (`POST /v1/chat/completions` and the
others) take and answer what vLLM does, and are described there.

Every answer carries `x-request-id`: the client's own, where it is 1-128 of `A-Z a-z 0-9 . _ : -`,
else a new one. Every path that takes GET takes HEAD. Another method is 405, another path 404, both
in the form of `Error`."""
_KEYS = {
    "adminKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The key whose SHA-256 is server.admin_key_sha256.",
    },
    "clientKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of an organization. Where there are no keys, none is needed.",
    },
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "open": [],
    "status": [{"adminKey": []}],
    "admin": [{"adminKey": []}],
    "client": [{"clientKey": []}],
}
_HEADERS = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_CHALLENGE = {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}}


def document(version: str) -> dict[str, Any]:
    """The whole document, for a release of this version."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "vLLM Compose Router", "version": version, "description": _ABOUT},
        "tags": [{"name": name} for name in dict.fromkeys(each.tag for each in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": _KEYS,
            "headers": {
                "RequestId": {
                    "description": "Names the request, here and in both logs.",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
                },
                "RetryAfter": {
                    "description": "Seconds.",
                    "required": True,
                    "schema": {"type": "integer", "minimum": 1},
                },
                "Challenge": {
                    "description": "Bearer.",
                    "required": True,
                    "schema": {"type": "string"},
                },
            },
        },
    }


def _models() -> Iterator[type[BaseModel]]:
    yield schema.Error
    for operation in OPERATIONS:
        for model in (operation.answer, operation.body):
            if isinstance(model, type):
                yield model


def _schemas() -> dict[str, Any]:
    models = dict.fromkeys(_models())
    _, whole = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    found: dict[str, Any] = whole["$defs"]
    return found


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "description": operation.about,
        "tags": [operation.tag],
        "security": _SECURITY[operation.key],
        "responses": _responses(operation),
    }
    if operation.parameters:
        told["parameters"] = list(operation.parameters)
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": _content(operation.body)}
    return told


def _name(operation: Operation) -> str:
    words = operation.path.replace("{id}", "one").replace(".", "/").strip("/").split("/")
    return "_".join((operation.method, *words))


def _responses(operation: Operation) -> dict[str, Any]:
    told = {"200": _response("As asked for.", operation.answer)}
    if operation.unhealthy is not None:
        told["503"] = _response(operation.unhealthy, operation.answer)
    by_status: dict[int, list[type[RouterError]]] = {}
    for error in operation.errors:
        by_status.setdefault(error.status, []).append(error)
    for status, errors in sorted(by_status.items()):
        lines = [f"`{error.code}`: {(error.__doc__ or '').splitlines()[0]}" for error in errors]
        told[str(status)] = _response("\n\n".join(lines), schema.Error)
        told[str(status)]["headers"] |= _headers(status)
    return told


def _headers(status: int) -> dict[str, Any]:
    if status == 401:
        return _CHALLENGE
    return _RETRY_AFTER if status in {429, 503} else {}


def _response(about: str, answer: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "headers": {**_HEADERS}, "content": _content(answer)}


def _content(answer: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    if isinstance(answer, dict):
        return answer
    return {_JSON: {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
