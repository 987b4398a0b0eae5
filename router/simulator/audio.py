"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: a multipart form, a short text."""

from __future__ import annotations

import hashlib

from aiohttp import web
from aiohttp.web_request import FileField

from router.simulator.errors import ApiError, missing
from router.simulator.frontend import FRONTEND, json_answer
from router.simulator.sampling import Sampling
from router.simulator.tokens import Prompt

#: Bytes that a second of 16 kHz, 16-bit, mono sound takes; vLLM bills sound by the second.
_BYTES_PER_SECOND = 32_000
#: Tokens that a speech encoder makes of a second of sound.
_TOKENS_PER_SECOND = 50
_MAX_TOKENS = 64


async def transcribe(request: web.Request) -> web.StreamResponse:
    """A text drawn from the sound's bytes."""
    frontend = request.app[FRONTEND]
    if not request.content_type.startswith("multipart/"):
        raise missing("body.file", None)
    form = await request.post()
    upload, model = form.get("file"), form.get("model")
    if not isinstance(upload, FileField):
        raise missing("body.file", None)
    frontend.model({"model": model or None})
    sound = upload.file.read()
    if not sound:
        raise ApiError("Invalid or unsupported audio file.")
    seconds = -(-len(sound) // _BYTES_PER_SECOND)
    tokens = min(seconds * _TOKENS_PER_SECOND, frontend.settings.max_model_len - _MAX_TOKENS - 1)
    key = int.from_bytes(hashlib.blake2b(sound, digest_size=8).digest(), "big")
    jobs = frontend.jobs([Prompt(max(1, tokens), (), key)], Sampling(max_tokens=_MAX_TOKENS))
    _, made = await frontend.collect(request, jobs)
    text = "".join(token.text for token in made[0])
    if form.get("response_format") == "text":
        return web.Response(text=text)
    return json_answer({"text": text, "usage": {"type": "duration", "seconds": seconds}})
