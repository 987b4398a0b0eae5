"""Scripts of an engine that counts prompts as a test says, and answers as vLLM would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.upstream import Close, Send, Step
from support.wire import LAST_CHUNK, Request, answer, chunk, stream_head

CONTEXT = 512
COUNT = "/tokenize"
FRAME = 256


def usage(prompt: int, completion: int) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion}


def counted(tokens: int) -> bytes:
    """An answer of `/tokenize`."""
    return answer({"count": tokens, "max_model_len": CONTEXT, "tokens": []})


def generated(request: Request, prompt: int, completion: int) -> bytes:
    """A unary answer that tells this usage, in the form of the request's path."""
    told: dict[str, Any] = usage(prompt, completion)
    if request.path in {"/v1/messages", "/v1/responses"}:
        told = {"input_tokens": prompt, "output_tokens": completion}
    return compact_answer({"id": "1", "model": "tiny", "choices": [], "usage": told})


def compact_answer(content: Any, status: int = 200) -> bytes:
    """A whole unary answer with JSON as vLLM writes it, without spaces."""
    return answer(compact(content), status)


def compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def engine(
    prompt: int, completion: int | None = None, count: Callable[[Any], int] | None = None
) -> Callable[[Request], list[Step]]:
    """Script of an engine whose prompts have so many tokens.

    Args:
        prompt: tokens of each prompt.
        completion: tokens of each answer; None: as many as the limit on it allows, `n` times.
        count: what `/tokenize` says of a body; default: the truth.
    """

    def script(request: Request) -> list[Step]:
        body = request.json
        if request.path == COUNT:
            return [Send(counted(prompt if count is None else count(body)))]
        made = longest(body, prompt) if completion is None else completion
        return [Send(generated(request, prompt, made))]

    return script


def longest(body: dict[str, Any], prompt: int) -> int:
    """The most tokens that an engine would make for a body."""
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    told = next((body[name] for name in names if body.get(name) is not None), CONTEXT)
    return int(min(told, CONTEXT - prompt)) * int(body.get("n") or 1)


def failing(how: int | str) -> Callable[[Request], list[Step]]:
    """Script of an engine that fails before the first byte of its answer's body."""

    def script(request: Request) -> list[Step]:
        if how == "no head":
            return [Close()]
        if how == "head alone":
            return [Send(stream_head()), Close()]
        if how == "short":
            return [Send(answer(b"{}").replace(b"length: 2", b"length: 9")), Close()]
        error = {"message": "no", "type": "BadRequestError", "param": None, "code": how}
        return [Send(answer({"error": error}, int(how)))]

    return script


def stream_of(*events: Any) -> list[Step]:
    """A whole stream, an event a chunk; dicts become events, bytes are sent as they are."""
    rows = (each if isinstance(each, bytes) else compact_event(each) for each in events)
    return [Send(stream_head()), *(Send(chunk(row)) for row in rows), Send(LAST_CHUNK)]


def compact_event(content: Any) -> bytes:
    """An event with JSON as vLLM writes it, without spaces."""
    return b"data: " + compact(content) + b"\n\n"
