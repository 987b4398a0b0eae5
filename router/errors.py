"""Every error the router itself answers with: its status, type and code live on the class.

The classes know nothing of HTTP frameworks or of an envelope's form; `router.openai.envelope`
renders them once. `message` is for the caller: it says what is wrong and what would be right.
"""

from __future__ import annotations

import math
from typing import ClassVar


class RouterError(Exception):
    """A request that ends with an answer of the router's own.

    Attributes:
        status: HTTP status.
        type: the envelope's `type` in OpenAI's form.
        code: the envelope's `code`; a promise to clients.
        param: name of the offending body field, or None.
        retry_after_s: seconds for `Retry-After`, or None for no such header.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def headers(self) -> list[tuple[str, str]]:
        """Headers that belong to this error, beyond the envelope's own."""
        if self.retry_after_s is None:
            return []
        return [("Retry-After", str(max(1, math.ceil(self.retry_after_s))))]


class InternalError(RouterError):
    """A fault of the router; the log has the trace, the client has the request id."""


# -- 400: the request itself -------------------------------------------------------------------


class BadRequest(RouterError):
    """The request's bytes are not what this path takes."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidJson(BadRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class MissingModel(BadRequest):
    """The body names no model."""

    code = "missing_model"


class InvalidModel(BadRequest):
    """`model` is there but is not a non-empty string."""

    code = "invalid_model"


class InvalidValue(BadRequest):
    """A field that the router must read has a value it cannot act on."""

    code = "invalid_value"


# -- 401, 403: who asks ------------------------------------------------------------------------


class AuthenticationError(RouterError):
    """No key, or one that counts for nothing."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def headers(self) -> list[tuple[str, str]]:
        """`WWW-Authenticate`, as RFC 9110 asks of every 401."""
        return [("WWW-Authenticate", "Bearer"), *super().headers()]


class MissingApiKey(AuthenticationError):
    """No key was sent."""

    code = "missing_api_key"


class InvalidApiKey(AuthenticationError):
    """The key is unknown, revoked or expired; which of them is not told."""


class ModelNotAllowed(RouterError):
    """The key's scope leaves this model out."""

    status = 403
    type = "permission_error"
    code = "model_not_allowed"


# -- 404, 405, 408, 409, 413: what is asked for ------------------------------------------------


class ModelNotFound(RouterError):
    """No service is configured for, or has told of, this model."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class UnknownPath(RouterError):
    """The path is not on the router's list."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_path"


class MethodNotAllowed(RouterError):
    """The path is known, the method is not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[str, str]]:
        """`Allow`, as RFC 9110 asks of every 405."""
        return [("Allow", self.allow), *super().headers()]


class RequestTimeout(RouterError):
    """The request's body did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class ModelAmbiguous(RouterError):
    """A short name fits several models; the message lists them."""

    status = 409
    type = "invalid_request_error"
    code = "model_ambiguous"


class RequestTooLarge(RouterError):
    """The body is over `server.max_body_mb`."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


# -- 429: limits -------------------------------------------------------------------------------


class RateLimitExceeded(RouterError):
    """The client's address sends faster than `limits.per_ip`."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class InsufficientQuota(RouterError):
    """A window of the organization's quota is used up, or held by running requests."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


# -- 502, 503, 504: the backends ---------------------------------------------------------------


class BadGateway(RouterError):
    """The backend broke the exchange before its first byte, and no other could take it."""

    status = 502
    code = "bad_gateway"


class NoHealthyBackend(RouterError):
    """The model is configured, and nothing healthy serves it."""

    status = 503
    code = "no_healthy_backend"


class ModelLoading(RouterError):
    """What serves the model is still starting."""

    status = 503
    code = "model_loading"


class Overloaded(RouterError):
    """Every slot and every place in the queue is taken, or the wait was too long."""

    status = 503
    code = "overloaded"


class Draining(RouterError):
    """The router is about to end and takes nothing new."""

    status = 503
    code = "draining"


class GatewayTimeout(RouterError):
    """No first byte within `server.request_timeout_s`."""

    status = 504
    code = "gateway_timeout"


# -- inside a stream that has begun: no status left to give, a code alone ----------------------


class StreamBroken(RouterError):
    """Base of what ends a stream after its first byte."""

    status = 502


class UpstreamDisconnected(StreamBroken):
    """The backend closed or broke the connection mid-answer."""

    code = "upstream_disconnected"


class UpstreamTimeout(StreamBroken):
    """The backend sent nothing for `server.idle_timeout_s`."""

    status = 504
    code = "upstream_timeout"


class ServerShuttingDown(StreamBroken):
    """`server.drain_timeout_s` is over and the stream was not."""

    status = 503
    code = "server_shutting_down"
