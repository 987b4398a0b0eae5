"""What is not inference: health, models, metrics, and the development routes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from router.simulator import metrics
from router.simulator.errors import invalid
from router.simulator.frontend import FRONTEND, json_answer

VERSION = "0.32.0"
_MAX_SLEEP_LEVEL = 2


async def health(request: web.Request) -> web.StreamResponse:
    """Always 200 and empty, also while the engine sleeps."""
    del request
    return web.Response()


async def version(request: web.Request) -> web.StreamResponse:
    """The version of vLLM whose answers these are."""
    del request
    return json_answer({"version": VERSION})


async def load(request: web.Request) -> web.StreamResponse:
    """HTTP requests that are being answered."""
    return json_answer({"server_load": request.app[FRONTEND].requests_in_flight})


async def models(request: web.Request) -> web.StreamResponse:
    """A row for each served name."""
    frontend = request.app[FRONTEND]
    rows = [
        _card(name, frontend.started_at, frontend.settings.max_model_len)
        for name in frontend.settings.models
    ]
    return json_answer({"object": "list", "data": rows})


async def show_metrics(request: web.Request) -> web.StreamResponse:
    """The engine's metrics."""
    frontend = request.app[FRONTEND]
    text = metrics.render(frontend.engine, frontend.settings.models[0])
    kind = "text/plain; version=1.0.0; charset=utf-8"
    return web.Response(body=text.encode(), headers={"content-type": kind})


async def sleep(request: web.Request) -> web.StreamResponse:
    """`?level=1` or `2`: what is in flight ends, what comes later hangs."""
    given = request.query.get("level", "1")
    level = int(given) if given.isascii() and given.isdigit() and len(given) < 4 else -1
    if level > _MAX_SLEEP_LEVEL:
        message = "Input should be less than or equal to 2"
        raise invalid("less_than_equal", "query.level", message, given, le=_MAX_SLEEP_LEVEL)
    if level < 0:
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid("int_parsing", "query.level", message, given)
    # Level 0 pauses: the weights stay where they are.
    engine = request.app[FRONTEND].engine
    if level:
        engine.sleep(level)
    else:
        engine.pause()
    return json_answer({"status": "sleeping", "level": level})


async def wake_up(request: web.Request) -> web.StreamResponse:
    """End a sleep; what hangs goes on."""
    frontend = request.app[FRONTEND]
    frontend.engine.wake_up()
    frontend.engine.resume()
    frontend.pacer.wake()
    return json_answer({"status": "awake", "tags": request.query.getall("tags", None)})


async def is_sleeping(request: web.Request) -> web.StreamResponse:
    """Whether the engine sleeps."""
    return json_answer({"is_sleeping": request.app[FRONTEND].engine.sleep_level > 0})


async def pause(request: web.Request) -> web.StreamResponse:
    """Stop generating: what is in flight ends, what comes later hangs."""
    request.app[FRONTEND].engine.pause()
    return json_answer({"status": "paused"})


async def resume(request: web.Request) -> web.StreamResponse:
    """End a pause; what hangs goes on."""
    frontend = request.app[FRONTEND]
    frontend.engine.resume()
    frontend.pacer.wake()
    return json_answer({"status": "resumed"})


async def is_paused(request: web.Request) -> web.StreamResponse:
    """Whether the engine is paused."""
    return json_answer({"is_paused": request.app[FRONTEND].engine.paused})


async def reset_prefix_cache(request: web.Request) -> web.StreamResponse:
    """Forget every cached prefix."""
    request.app[FRONTEND].engine.reset_prefix_cache()
    return json_answer({"success": True})


def _card(name: str, created: int, max_model_len: int) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{created:016x}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": f"/models/{name}",
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
