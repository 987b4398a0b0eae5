"""The errors that vLLM answers with, word for word, and the forms it wraps them in."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than 200, with what its JSON says.

    Attributes:
        status: HTTP status; also the `code` of OpenAI's form.
        kind: the `type`.
        param: the field at fault, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        # What it quotes may hold lone surrogates, which no answer can carry.
        self.message = message.encode("utf-8", "replace").decode()
        self.status = status
        self.kind = kind
        self.param = param

    def openai_body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return {"error": error}

    def anthropic_body(self) -> dict[str, Any]:
        """The error in the form of `/v1/messages`."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}}


class ValidationError(ApiError):
    """The body (or query) has not the form that the path asks for; in OpenAI's form everywhere."""

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(f"1 validation error:\n  {detail}", kind="Bad Request", param=param)

    def anthropic_body(self) -> dict[str, Any]:
        """OpenAI's form: the framework answers before the path's own handler is reached."""
        return self.openai_body()


class UnreadableBody(Exception):
    """The body is no JSON for a reason other than its grammar: `{"detail": …}`, status 400."""


def invalid(kind: str, loc: str, message: str, given: object, **context: object) -> ValidationError:
    """A field of the wrong form. `loc` is its path, such as `body.max_tokens`."""
    detail: dict[str, object] = {
        "type": kind,
        "loc": loc,
        "msg": message,
        "input": _shown(given),
    }
    if context:
        detail["ctx"] = context
    return ValidationError(str(detail), param=loc)


def missing(loc: str, given: object) -> ValidationError:
    """A required field is not there; `given` is what it is missing from."""
    return invalid("missing", loc, "Field required", given)


def bad_value(problem: str, name: str, value: object | None = None) -> ApiError:
    """A field whose form is right and whose value is not."""
    shown = f"parameter={name}" if value is None else f"parameter={name}, value={value}"
    return ApiError(f"{problem} ({shown})", param=name)


def unknown_model(name: str, served: tuple[str, ...]) -> ApiError:
    """No such model here."""
    message = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
    return ApiError(message, status=404, kind="NotFoundError", param="model")


def prompt_too_long(tokens: int, limit: int, requested: int | None = None) -> ApiError:
    """The prompt, with the output asked for if that is why, is over the context length."""
    if requested is None:
        rest = (
            f"your prompt contains at least {tokens} input tokens, which exceeds this limit even"
            " without any output tokens. Please reduce the length of the input prompt."
        )
    else:
        rest = (
            f"you requested {requested} output tokens and your prompt contains at least {tokens}"
            f" input tokens, for a total of at least {requested + tokens} tokens. Please reduce"
            " the length of the input prompt or the number of requested output tokens."
        )
    message = f"This model's maximum context length is {limit} tokens. However, {rest}"
    return bad_value(message, "input_tokens", tokens)


def engine_busy() -> ApiError:
    """Over `max_num_queued_reqs`."""
    message = (
        "The engine is currently busy and cannot accept new requests."
        " Please try again later or on a different instance."
    )
    return ApiError(message, status=503, kind="Service Unavailable")


def _shown(given: object) -> str:
    if isinstance(given, dict):
        return f"<dict of {len(given)} items>"
    if isinstance(given, list):
        return f"<list of {len(given)} items>"
    return str(given)
