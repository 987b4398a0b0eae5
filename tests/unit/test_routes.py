"""The table of paths: which handler a request gets, what guards it, and how wrong ones are told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiohttp import web

from router import routes
from router.access.identity import ANONYMOUS
from router.config.settings import RouteSettings, Settings
from router.errors import InvalidApiKey, MissingApiKey, RateLimitExceeded
from router.openai.paths import INFERENCE_PATHS, Dialect
from router.routes import Dispatch

SQL = Settings(routes=(RouteSettings(path="/text2sql", model="sql"),))


class Connection:
    """Stands for the client's connection."""


class Exchange:
    """Writes down its end."""

    def __init__(self, request, _connection, _downstream, _started) -> None:
        self.request = request
        self.request_id = b"req-1"
        self.client = 7
        self.address = None
        self.refused = None
        self.ends = 0
        request.exchange = self

    def header(self, name: bytes) -> str | None:
        return self.request.headers.get(name.decode())

    def refuse(self, error, dialect, lines=b"") -> None:
        self.refused = (error, dialect)

    def ended(self):
        self.ends += 1
        return "written"


class House:
    """A dispatch whose pages answer with their own names, and whose pipeline notes the entry."""

    def __init__(self, settings: Settings = SQL) -> None:
        self.entered: list[tuple] = []
        self.guarded = 0
        self.served = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        names = ("health", "live", "ready", "services", "stats", "metrics")
        self.dispatch = Dispatch(
            pipeline=self,
            door=SimpleNamespace(enter=self.enter),
            guard=SimpleNamespace(check=self.check),
            status=SimpleNamespace(**{name: self.page(name) for name in names}),
            models=SimpleNamespace(list=self.page("list"), one=self.page("one")),
            usage=SimpleNamespace(own=self.page("own")),
            settings=settings,
        )

    def page(self, name: str):
        async def answer(_request, identity=None) -> web.Response:
            return web.Response(text=name if identity is None else f"{name} for {identity.key_id}")

        return answer

    def enter(self, client, authorization, x_api_key):
        if self.error is not None:
            raise self.error
        self.entered.append((client, authorization, x_api_key))
        return ANONYMOUS

    def check(self, *_arguments) -> None:
        if self.error is not None:
            raise self.error
        self.guarded += 1

    async def serve(self, exchange, entry) -> None:
        self.served.append(entry)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def get(self, path: str, method: str = "GET", **headers: str):
        """The answer of a page, or (status, code, dialect) of a refusal, or the pipeline's."""
        request = SimpleNamespace(
            raw_path=path, method=method, protocol=Connection(), headers=headers
        )
        answer = await self.dispatch.serve(request, None)
        exchange = request.exchange
        assert exchange.ends == 1
        if exchange.refused is not None:
            error, dialect = exchange.refused
            return error.status, error.code, dialect
        return answer

    async def post(self, path: str):
        return await self.get(path, "POST")


@pytest.fixture
def house(monkeypatch) -> House:
    monkeypatch.setattr(routes, "ClientConnection", Connection)
    monkeypatch.setattr(routes, "ClientExchange", Exchange)
    return House()


@pytest.mark.parametrize("path", sorted(INFERENCE_PATHS))
async def test_every_inference_path_goes_through_the_pipeline(house, path):
    assert await house.post(path) == "written"
    assert [(entry.path, entry.model) for entry in house.served] == [(INFERENCE_PATHS[path], None)]


async def test_a_named_route_has_its_own_model_and_upstream_path(house):
    await house.post("/text2sql")
    (entry,) = house.served
    assert (entry.path.upstream, entry.model) == ("/v1/chat/completions", "sql")


async def test_a_query_is_no_part_of_the_path(house):
    await house.post("/v1/chat/completions?api-version=1")
    assert len(house.served) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "post"])
async def test_inference_takes_post_alone(house, method):
    refused = await house.get("/v1/chat/completions", method)
    assert refused == (405, "method_not_allowed", Dialect.OPENAI)
    assert house.served == []


async def test_a_wrong_method_is_told_in_the_paths_own_form(house):
    assert (await house.get("/v1/messages"))[2] is Dialect.ANTHROPIC


async def test_a_wrong_method_is_told_what_is_allowed(house):
    request = SimpleNamespace(raw_path="/health", method="POST", protocol=Connection(), headers={})
    await house.dispatch.serve(request, None)
    assert ("Allow", "GET, HEAD") in request.exchange.refused[0].headers()


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/v1", "/v1/", "/nope", "/v1/chat", "/v1/chat/completions/", "//v1/models",
        "/V1/models", "/v1/models/", "/models/", "/health/", "/invocations", "/sleep",
        "/v1/chat/completions%20", "http://host/v1/models",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_not_in_the_table_is_unknown_and_reaches_nothing(house, path, method):
    assert await house.get(path, method) == (404, "unknown_path", Dialect.OPENAI)
    assert (house.served, house.entered, house.guarded) == ([], [], 0)


async def test_a_long_path_is_not_repeated_whole(house):
    request = SimpleNamespace(
        raw_path="/" + "x" * 9000, method="GET", protocol=Connection(), headers={}
    )
    await house.dispatch.serve(request, None)
    assert len(request.exchange.refused[0].message) < 400


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_is_open(house, path):
    house.error = MissingApiKey("never asked")
    assert (await house.get(path)).status == 200


@pytest.mark.parametrize("path", ["/services", "/stats", "/metrics"])
async def test_operators_pages_are_guarded(house, path):
    assert (await house.get(path)).text == path[1:]
    assert house.guarded == 1
    house.error = InvalidApiKey("not the admin key")
    assert (await house.get(path))[:2] == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/v1/models", "list"),
        ("/models", "list"),
        ("/v1/models/Qwen/Qwen2.5", "one"),
        ("/models/x", "one"),
        ("/v1/usage", "own"),
    ],
)
async def test_clients_pages_pass_the_door(house, path, page):
    answer = await house.get(path, authorization="Bearer k")
    assert answer.text == f"{page} for {ANONYMOUS.key_id}"
    assert house.entered == [(7, "Bearer k", None)]


async def test_who_comes_too_often_is_refused_on_clients_pages_too(house):
    house.error = RateLimitExceeded("too fast", retry_after_s=1)
    assert (await house.get("/v1/models"))[:2] == (429, "rate_limit_exceeded")


async def test_a_page_carries_the_requests_id(house):
    assert (await house.get("/health")).headers["x-request-id"] == "req-1"


async def test_new_settings_bring_new_routes_and_take_old_ones_away(house):
    house.dispatch.configure(Settings(routes=(RouteSettings(path="/new", model="n"),)))
    assert (await house.get("/text2sql", "POST"))[0] == 404
    await house.post("/new")
    assert house.served[0].model == "n"


async def test_requests_under_way_are_counted_until_the_last_has_ended(house):
    house.gate = asyncio.Event()
    tasks = [asyncio.create_task(house.post("/v1/embeddings")) for _ in range(3)]
    await asyncio.sleep(0)
    assert (house.dispatch.active, house.dispatch.idle.is_set()) == (3, False)
    tasks[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert house.dispatch.active == 2
    house.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (house.dispatch.active, house.dispatch.idle.is_set()) == (0, True)


async def test_a_fault_of_the_router_leaves_no_request_counted(house):
    house.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await house.post("/v1/embeddings")
    assert (house.dispatch.active, house.dispatch.idle.is_set()) == (0, True)


async def test_pages_do_not_hold_a_shutdown_up(house):
    await house.get("/health")
    assert house.dispatch.idle.is_set()
