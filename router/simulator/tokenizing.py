"""`POST /tokenize` and `/detokenize`: no key, no place in the batch."""

from __future__ import annotations

from aiohttp import web

from router.simulator.body import array, flag, read_json, string
from router.simulator.conversation import render
from router.simulator.errors import invalid, missing
from router.simulator.frontend import FRONTEND, json_answer, utf8
from router.simulator.tokens import decode, encode, split


async def tokenize(request: web.Request) -> web.StreamResponse:
    """The tokens of a prompt or of a conversation."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    frontend.model(body)
    messages = array(body, "messages")
    text = string(body, "prompt") if messages is None else render(messages, body.get("tools"))
    if text is None:
        raise missing("body.prompt", body)
    raw = utf8(text)
    ids = encode(raw)
    shown = [piece.decode("utf-8", "replace") for piece in split(raw)]
    return json_answer(
        {
            "count": len(ids),
            "max_model_len": frontend.settings.max_model_len,
            "tokens": ids,
            "token_strs": shown if flag(body, "return_token_strs") else None,
        }
    )


async def detokenize(request: web.Request) -> web.StreamResponse:
    """The text of tokens."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    frontend.model(body)
    ids = array(body, "tokens")
    if ids is None:
        raise missing("body.tokens", body)
    for place, number in enumerate(ids):
        if type(number) is not int or number < 0:
            loc = f"body.tokens.{place}"
            raise invalid("int_type", loc, "Input should be a valid integer", number)
    return json_answer({"prompt": decode(ids)})
