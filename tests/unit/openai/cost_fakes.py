"""Bodies, and what they are taken for."""

from __future__ import annotations

import json
from typing import Any

from router.openai.body import read_fields
from router.openai.cost import (
    FRAME_TOKENS,
    Cost,
    is_countable,
    most,
)
from router.openai.paths import INFERENCE_PATHS

CONTEXT = 32_768
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
LINK = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}


def cost_of(
    path: str, body: dict[str, Any] | bytes, context: int | None = CONTEXT, **more: Any
) -> Cost:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    row = INFERENCE_PATHS[path]
    fields = read_fields(raw)
    return most(row, fields, raw, context=context, **{"frame": FRAME_TOKENS, **more})


def countable(path: str, body: dict[str, Any] | bytes) -> bool:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return is_countable(INFERENCE_PATHS[path], read_fields(raw), raw)


def chat(context: int | None = CONTEXT, **fields: Any) -> Cost:
    return cost_of(CHAT, {"model": "m", "messages": HELLO, **fields}, context)


def completions(context: int | None = CONTEXT, **fields: Any) -> Cost:
    return cost_of(COMPLETIONS, {"model": "m", "prompt": "hello", **fields}, context)
