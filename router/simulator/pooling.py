"""What a prompt is turned into rather than continued: embeddings, scores, ranks, classes."""

from __future__ import annotations

import base64
import math
import struct
import time
from typing import Any

from aiohttp import web

from router.simulator.body import Body, array, integer, read_json, string
from router.simulator.completions import as_prompt, as_text, read_inputs
from router.simulator.conversation import render
from router.simulator.errors import ApiError, invalid, missing, prompt_too_long
from router.simulator.frontend import FRONTEND, Frontend, body_id, json_answer
from router.simulator.text import mix
from router.simulator.tokens import Prompt
from router.simulator.usage import pooling_usage

_ENCODINGS = ("float", "base64")


async def embeddings(request: web.Request) -> web.StreamResponse:
    """A vector for each input; the same for the same text."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    model = frontend.model(body)
    dimensions = integer(body, "dimensions")
    if dimensions is not None:
        problem = f"Model '{model}' does not support Matryoshka embeddings; dimensions must be"
        raise ApiError(f"{problem} unset (received dimensions={dimensions}).")
    encoding = string(body, "encoding_format") or "float"
    if encoding not in _ENCODINGS:
        message = "Input should be 'float' or 'base64'"
        raise invalid("literal_error", "body.encoding_format", message, encoding)
    prompts = _prompts(body, frontend)
    await _prefill(request, frontend, prompts)
    vectors = [vector(prompt, frontend) for prompt in prompts]
    data = [
        {"index": i, "object": "embedding", "embedding": _encoded(values, encoding)}
        for i, values in enumerate(vectors)
    ]
    return json_answer(_answer(body_id(request, "embd-"), model, data, prompts))


async def pooling(request: web.Request) -> web.StreamResponse:
    """The model's own output for each input."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    model = frontend.model(body)
    prompts = _prompts(body, frontend)
    await _prefill(request, frontend, prompts)
    data = [
        {"index": i, "object": "pooling", "data": vector(prompt, frontend)}
        for i, prompt in enumerate(prompts)
    ]
    return json_answer(_answer(body_id(request, "pooling-"), model, data, prompts))


async def classify(request: web.Request) -> web.StreamResponse:
    """Two classes and their probabilities for each input."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    model = frontend.model(body)
    prompts = _prompts(body, frontend)
    await _prefill(request, frontend, prompts)
    data = []
    for i, prompt in enumerate(prompts):
        share = mix(prompt.key) % 1000 / 1000
        label = "LABEL_0" if share >= 0.5 else "LABEL_1"
        probabilities = [share, 1 - share]
        data.append({"index": i, "label": label, "probs": probabilities, "num_classes": 2})
    return json_answer(_answer(body_id(request, "classify-"), model, data, prompts))


async def score(request: web.Request) -> web.StreamResponse:
    """How close each text of `text_2` is to its text of `text_1`."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    model = frontend.model(body)
    left, right = _texts(body, "text_1"), _texts(body, "text_2")
    if len(left) == 1:
        left *= len(right)
    if len(left) != len(right):
        raise ApiError("text_1 and text_2 must be of the same length, or text_1 a single text.")
    pairs = [(frontend.prompt(a), frontend.prompt(b)) for a, b in zip(left, right, strict=True)]
    prompts = [prompt for pair in pairs for prompt in pair]
    await _prefill(request, frontend, prompts)
    data = [
        {"index": i, "object": "score", "score": similarity(a, b, frontend)}
        for i, (a, b) in enumerate(pairs)
    ]
    return json_answer(_answer(body_id(request, "score-"), model, data, prompts))


async def rerank(request: web.Request) -> web.StreamResponse:
    """The documents, the closest to the query first."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    model = frontend.model(body)
    query = string(body, "query")
    if query is None:
        raise missing("body.query", body)
    texts = _texts(body, "documents")
    asked = frontend.prompt(query)
    documents = [frontend.prompt(text) for text in texts]
    await _prefill(request, frontend, [asked, *documents])
    results: list[dict[str, Any]] = [
        {
            "index": i,
            "document": {"text": texts[i], "multi_modal": None},
            "relevance_score": similarity(asked, document, frontend),
        }
        for i, document in enumerate(documents)
    ]
    results.sort(key=lambda row: row["relevance_score"], reverse=True)
    total = sum(asked.tokens + document.tokens for document in documents)
    return json_answer(
        {
            "id": body_id(request, "score-"),
            "model": model,
            "usage": {"prompt_tokens": total, "total_tokens": total},
            "results": results[: integer(body, "top_n") or len(results)],
        }
    )


def vector(prompt: Prompt, frontend: Frontend) -> list[float]:
    """A unit vector drawn from the prompt."""
    seed, size = frontend.settings.seed, frontend.settings.embedding_dim
    raw = [mix(seed, prompt.key, i) / (1 << 63) - 1 for i in range(size)]
    norm = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / norm for value in raw]


def similarity(left: Prompt, right: Prompt, frontend: Frontend) -> float:
    """Cosine of the two prompts' vectors: 1 for the same text, near 0 for others."""
    pairs = zip(vector(left, frontend), vector(right, frontend), strict=True)
    return sum(a * b for a, b in pairs)


async def _prefill(request: web.Request, frontend: Frontend, prompts: list[Prompt]) -> None:
    limit = frontend.settings.max_model_len
    for prompt in prompts:
        if prompt.tokens > limit:
            raise prompt_too_long(limit + 1, limit)
        if not prompt.tokens:
            raise ApiError("The decoder prompt cannot be empty")
    await frontend.collect(request, [(prompt, None) for prompt in prompts])


def _prompts(body: Body, frontend: Frontend) -> list[Prompt]:
    messages = array(body, "messages")
    if messages is not None:
        return [frontend.prompt(render(messages))]
    given = body.get("input")
    if given is None:
        raise missing("body.input", body)
    if given == "":
        raise ApiError("The decoder prompt cannot be empty")
    return [as_prompt(item, frontend) for item in read_inputs(given, "input")]


def _texts(body: Body, name: str) -> list[str]:
    if body.get(name) is None:
        raise missing(f"body.{name}", body)
    given = body[name]
    items = given if isinstance(given, list) else [given]
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    return [as_text(item) for item in read_inputs(texts, name)]


def _encoded(values: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _answer(
    answer_id: str, model: str, data: list[dict[str, Any]], prompts: list[Prompt]
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": pooling_usage(sum(prompt.tokens for prompt in prompts)),
    }
