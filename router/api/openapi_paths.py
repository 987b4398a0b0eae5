"""The table behind `/openapi.json`: every page of the router's own, and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from router import errors
from router.api import schema
from router.errors import RouterError
from router.openai.paths import INFERENCE_PATHS

Errors = tuple[type[RouterError], ...]

_CLIENT: Errors = (
    errors.MissingApiKey,
    errors.InvalidApiKey,
    errors.RateLimitExceeded,
    errors.Draining,
)
_STATUS: Errors = (errors.MissingApiKey, errors.InvalidApiKey)
_BODY: Errors = (
    errors.InvalidJson, errors.MissingModel, errors.InvalidModel, errors.InvalidValue,
    errors.BadRequest, errors.RequestTooLarge, errors.RequestTimeout,
)  # fmt: skip
_METRICS = {
    "text/plain": {"schema": {"type": "string"}},
    "application/openmetrics-text": {"schema": {"type": "string"}},
}
_PATHS = sorted(path for path, row in INFERENCE_PATHS.items() if path == row.upstream)


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and method.

    Attributes:
        path: with its parameters in braces.
        summary: one line.
        about: more of it.
        tag: the group it is shown in.
        answer: of status 200; a model, or media types as OpenAPI wants them.
        unhealthy: 503 has the same form, with this meaning.
        errors: that it may answer.
        key: `open`; `status`: the admin key, or an address that is let in; `client`: a client's, if
            there are any; `admin`: the admin key.
        method: in lower case. What takes GET takes HEAD.
        parameters: as OpenAPI wants them.
        body: model of the request's.
    """

    path: str
    summary: str
    about: str
    tag: str
    answer: type[BaseModel] | dict[str, Any]
    unhealthy: str | None = None
    errors: Errors = ()
    key: str = "open"
    method: str = "get"
    parameters: tuple[dict[str, Any], ...] = ()
    body: type[BaseModel] | None = None


_MODEL_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "A full name (slashes and all), an alias or a short name.",
    "schema": {"type": "string", "minLength": 1},
}
_INFERENCE_PATH = {
    "name": "path",
    "in": "query",
    "description": "Where the body would be sent; a named route of the configuration is taken too.",
    "schema": {"type": "string", "enum": _PATHS, "default": "/v1/chat/completions"},
}

OPERATIONS = (
    Operation(
        "/health",
        "Router and services in a few words",
        "200 while at least one service is healthy.",
        "Health",
        schema.Health,
        unhealthy="No service is healthy.",
    ),
    Operation(
        "/health/live",
        "The process serves",
        "For a supervisor: 200 as long as the process answers at all.",
        "Health",
        schema.Live,
    ),
    Operation(
        "/health/ready",
        "It takes requests",
        "For a load balancer: 200 between start and drain.",
        "Health",
        schema.Ready,
        unhealthy="It is starting or draining.",
    ),
    Operation(
        "/services",
        "Every service",
        "Open to server.status_allow (default: loopback), and to the admin key from anywhere.",
        "Status",
        schema.Services,
        errors=_STATUS,
        key="status",
    ),
    Operation(
        "/stats",
        "Numbers by service and organization",
        "Open to server.status_allow (default: loopback), and to the admin key from anywhere. "
        "Organizations are shown to the admin key alone.",
        "Status",
        schema.Stats,
        errors=_STATUS,
        key="status",
    ),
    Operation(
        "/metrics",
        "Prometheus' exposition",
        "Text, or OpenMetrics where the Accept header asks for it. Open to "
        "server.status_allow (default: loopback), and to the admin key from anywhere.",
        "Status",
        _METRICS,
        errors=_STATUS,
        key="status",
    ),
    Operation(
        "/v1/models",
        "Models that the key may use",
        "The union over healthy services, aliases included. Also as /models.",
        "Clients",
        schema.Models,
        errors=_CLIENT,
        key="client",
    ),
    Operation(
        "/v1/models/{id}",
        "One model",
        "Also as /models/{id}.",
        "Clients",
        schema.Model,
        errors=(
            *_CLIENT,
            errors.ModelNotAllowed,
            errors.ModelNotFound,
            errors.UnknownPath,
            errors.ModelAmbiguous,
            errors.NoHealthyBackend,
            errors.ModelLoading,
        ),
        key="client",
        parameters=(_MODEL_ID,),
    ),
    Operation(
        "/v1/usage",
        "What the key's organization has used and may still use",
        "Tokens a day, tokens a month, requests a day, by UTC calendar.",
        "Clients",
        schema.Usage,
        errors=_CLIENT,
        key="client",
    ),
    Operation(
        "/explain",
        "What would happen to an inference request",
        "Sends nothing to an engine and reserves nothing. The body is the request's own; for the "
        "audio paths that is a form, sent with its own content-type.",
        "Status",
        schema.Explanation,
        errors=(
            *_STATUS,
            *_BODY,
            errors.ModelNotFound,
            errors.ModelAmbiguous,
            errors.ModelLoading,
        ),
        key="admin",
        method="post",
        parameters=(_INFERENCE_PATH,),
        body=schema.InferenceRequest,
    ),
    Operation(
        "/openapi.json",
        "This document",
        "OpenAPI 3.1.",
        "Reference",
        {"application/json": {"schema": {"type": "object"}}},
    ),
    Operation(
        "/docs",
        "This document, to be read",
        "One page without scripts.",
        "Reference",
        {"text/html": {"schema": {"type": "string"}}},
    ),
)
"""Inference paths are not among them: what they take and answer is vLLM's."""
