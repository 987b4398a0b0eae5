"""The engine's HTTP application: its paths, who may call them, and what goes with every answer."""

from __future__ import annotations

import hmac
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from router.simulator import admin, audio, pooling, tokenizing
from router.simulator.body import read_json
from router.simulator.chat import answer_chat, chat_completions
from router.simulator.completions import answer_completion, completions
from router.simulator.errors import ApiError, UnreadableBody, missing
from router.simulator.frontend import FRONTEND, Frontend, json_answer
from router.simulator.messages import count_tokens, messages
from router.simulator.responses import get_response, responses
from router.simulator.settings import SimulatorSettings

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ROUTES: tuple[tuple[str, str, _Handler], ...] = (
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/responses", responses),
    ("GET", "/v1/responses/{response_id}", get_response),
    ("POST", "/v1/responses/{response_id}/cancel", get_response),
    ("POST", "/v1/messages", messages),
    ("POST", "/v1/messages/count_tokens", count_tokens),
    ("POST", "/v1/embeddings", pooling.embeddings),
    ("POST", "/pooling", pooling.pooling),
    ("POST", "/classify", pooling.classify),
    ("POST", "/score", pooling.score),
    ("POST", "/v1/score", pooling.score),
    ("POST", "/rerank", pooling.rerank),
    ("POST", "/v1/rerank", pooling.rerank),
    ("POST", "/v2/rerank", pooling.rerank),
    ("POST", "/tokenize", tokenizing.tokenize),
    ("POST", "/detokenize", tokenizing.detokenize),
    ("POST", "/v1/audio/transcriptions", audio.transcribe),
    ("POST", "/v1/audio/translations", audio.transcribe),
    ("GET", "/v1/models", admin.models),
    ("GET", "/health", admin.health),
    ("GET", "/ping", admin.health),
    ("POST", "/ping", admin.health),
    ("GET", "/version", admin.version),
    ("GET", "/load", admin.load),
    ("GET", "/metrics", admin.show_metrics),
    ("GET", "/metrics/", admin.show_metrics),
)
_DEV_ROUTES: tuple[tuple[str, str, _Handler], ...] = (
    ("POST", "/sleep", admin.sleep),
    ("POST", "/wake_up", admin.wake_up),
    ("GET", "/is_sleeping", admin.is_sleeping),
    ("POST", "/pause", admin.pause),
    ("POST", "/resume", admin.resume),
    ("GET", "/is_paused", admin.is_paused),
    ("POST", "/reset_prefix_cache", admin.reset_prefix_cache),
)
#: Only what is below these asks for the key.
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")


def make_app(settings: SimulatorSettings) -> web.Application:
    """An application that answers as one vLLM server would. Serve it with `handler_cancellation`.

    Without that, sequences of clients that have gone stay until their next token is due.
    """
    app = web.Application(
        client_max_size=settings.max_body_bytes, middlewares=[_errors, _authorize]
    )
    app[FRONTEND] = Frontend(settings)
    routes = (*_ROUTES, ("POST", "/invocations", _invocations))
    for method, path, handler in (*routes, *(_DEV_ROUTES if settings.dev_mode else ())):
        app.router.add_route(method, path, handler)
    app.on_response_prepare.append(_add_headers)
    app.cleanup_ctx.append(_pacing)
    return app


async def _invocations(request: web.Request) -> web.StreamResponse:
    """Amazon SageMaker's path: whichever of the others the body fits; needs no key."""
    body = await read_json(request)
    if "messages" in body:
        return await answer_chat(request, body)
    if "prompt" in body:
        return await answer_completion(request, body)
    raise missing("body.messages", body)


async def _pacing(app: web.Application) -> AsyncIterator[None]:
    yield
    app[FRONTEND].pacer.close()


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        anthropic = request.path.startswith("/v1/messages")
        body = error.anthropic_body() if anthropic else error.openai_body()
        return json_answer(body, error.status)
    except UnreadableBody:
        return json_answer({"detail": "There was an error parsing the body"}, 400)
    except web.HTTPMethodNotAllowed as error:
        answer = json_answer({"detail": "Method Not Allowed"}, 405)
        answer.headers["allow"] = ", ".join(sorted(error.allowed_methods))
        return answer
    except web.HTTPNotFound:
        return _not_found(request)
    except web.HTTPRequestEntityTooLarge:
        return json_answer({"detail": "Request Entity Too Large"}, 413)


@web.middleware
async def _authorize(request: web.Request, handler: _Handler) -> web.StreamResponse:
    key = request.app[FRONTEND].settings.api_key
    if key is None or not request.path.startswith(_GUARDED) or request.method == "OPTIONS":
        return await handler(request)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    sent = given.encode("utf-8", "surrogateescape")
    if scheme.lower() == "bearer" and hmac.compare_digest(sent, key.encode()):
        return await handler(request)
    return json_answer({"error": "Unauthorized"}, 401)


def _not_found(request: web.Request) -> web.Response:
    known = {resource.canonical for resource in request.app.router.resources()}
    path = request.path.rstrip("/")
    if request.path.endswith("/") and path in known:
        location = f"{request.scheme}://{request.host}{path}"
        return web.Response(status=307, headers={"location": location})
    return json_answer({"detail": "Not Found"}, 404)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["server"] = "uvicorn"
    if response.status != 401:
        response.headers["vary"] = "Origin"
    if request.app[FRONTEND].settings.request_id_headers:
        given = request.headers.get("X-Request-Id")
        response.headers["x-request-id"] = uuid.uuid4().hex if given is None else given
