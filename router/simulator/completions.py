"""`POST /v1/completions`."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from router.simulator.body import Body, flag, integer, read_json
from router.simulator.completion_events import CompletionEvents
from router.simulator.errors import ApiError, bad_value, invalid
from router.simulator.frontend import FRONTEND, Frontend, body_id, json_answer
from router.simulator.logprobs import completion_logprobs
from router.simulator.sampling import Sampling, read_sampling, read_streaming
from router.simulator.sse import FINGERPRINT
from router.simulator.text import Token
from router.simulator.tokens import Prompt, decode
from router.simulator.usage import unary_usage, usage_of

#: OpenAI's default for this path.
_DEFAULT_MAX_TOKENS = 16


async def completions(request: web.Request) -> web.StreamResponse:
    """Continue one prompt or several, whole or as a stream."""
    return await answer_completion(request, await read_json(request))


async def answer_completion(request: web.Request, body: Body) -> web.StreamResponse:
    """Answer a completion request whose body has been read."""
    frontend = request.app[FRONTEND]
    streaming = read_streaming(body, force_usage=frontend.settings.force_include_usage)
    inputs = read_inputs(body.get("prompt"), "prompt")
    model = frontend.model(body)
    if body.get("suffix"):
        problem = "suffix is only supported for models with FIM completion rendering"
        raise ApiError(problem, param="suffix")
    sampling = read_sampling(
        body, frontend.settings, limits=("max_tokens",), logprobs=integer(body, "logprobs")
    )
    prompts = [as_prompt(item, frontend) for item in inputs]
    # An explicit null means the rest of the context; only an absent limit is 16.
    default = None if "max_tokens" in body else _DEFAULT_MAX_TOKENS
    jobs = frontend.jobs(prompts, sampling, default)
    echoes = [as_text(item) for item in inputs for _ in range(sampling.n)]
    if not flag(body, "echo"):
        echoes = [""] * len(jobs)
    answer_id = body_id(request, "cmpl-")
    if streaming.stream:
        events = CompletionEvents(
            answer_id=answer_id,
            model=model,
            prompts=prompts,
            echoes=echoes,
            sampling=sampling,
            streaming=streaming,
            block_size=frontend.settings.block_size,
        )
        return await frontend.stream(request, jobs, events)
    sequences, tokens = await frontend.collect(request, jobs)
    usage = usage_of(sequences, sampling.n, frontend.settings.block_size)
    return json_answer(
        {
            "id": answer_id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "choices": [_choice(i, t, echoes[i], sampling) for i, t in enumerate(tokens)],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": unary_usage(usage, None),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def read_inputs(given: object, name: str) -> list[str | list[int]]:
    """The inputs in a text, a list of texts, token ids, or a list of token ids.

    Raises:
        ApiError: none, or something else.
    """
    if isinstance(given, str) and given:
        return [given]
    if not isinstance(given, list) or not given:
        if given is None or given in ("", []):
            problem = f"Either {name} or {name}_embeds must be provided and non-empty."
            raise bad_value(problem, name)
        raise invalid("string_type", f"body.{name}", "Input should be a valid string", given)
    if _is_ids(given):
        return [given]
    if all(isinstance(item, str) or _is_ids(item) for item in given):
        return list(given)
    raise invalid("list_type", f"body.{name}", "Input should be a valid list", given)


def as_prompt(item: str | list[int], frontend: Frontend) -> Prompt:
    """The prompt of one input."""
    if isinstance(item, str):
        return frontend.prompt(item)
    return Prompt.from_ids(item, frontend.settings.block_size)


def as_text(item: str | list[int]) -> str:
    """The text of one input."""
    return item if isinstance(item, str) else decode(item)


def _is_ids(item: object) -> bool:
    return isinstance(item, list) and all(type(i) is int and 0 <= i < 1 << 53 for i in item)


def _choice(index: int, tokens: list[Token], echo: str, sampling: Sampling) -> dict[str, Any]:
    last = tokens[-1]
    alternatives = sampling.logprobs
    return {
        "index": index,
        "text": echo + "".join(token.text for token in tokens),
        "logprobs": None
        if alternatives is None
        else completion_logprobs(tokens, alternatives, len(echo)),
        "finish_reason": last.finish,
        "stop_reason": last.stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }
