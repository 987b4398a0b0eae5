"""The one table of paths: what the router answers, and with what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from router.access.door import Door
from router.access.identity import Identity
from router.api.access import StatusGuard
from router.api.models import ModelPages
from router.api.pages import StatusPages
from router.api.usage import UsagePages
from router.config.settings import Settings
from router.errors import MethodNotAllowed, RouterError, UnknownPath
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS, Dialect
from router.proxy.admit import Entry
from router.proxy.downstream import ClientConnection, ClientExchange, Downstream
from router.proxy.pipeline import Pipeline

PageHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
ClientPageHandler = Callable[[web.BaseRequest, Identity], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """A path that is not inference; GET and HEAD.

    Attributes:
        handler: answers it.
        guarded: only for loopback, `server.status_allow` and the admin key.
    """

    handler: PageHandler
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class ClientPage:
    """A page for clients: it counts for the rate of an address and asks for a key."""

    handler: ClientPageHandler


def pages(
    status: StatusPages, models: ModelPages, usage: UsagePages
) -> Mapping[str, Page | ClientPage]:
    """Path -> page."""
    return {
        "/health": Page(status.health),
        "/health/live": Page(status.live),
        "/health/ready": Page(status.ready),
        "/services": Page(status.services, guarded=True),
        "/stats": Page(status.stats, guarded=True),
        "/metrics": Page(status.metrics, guarded=True),
        "/v1/models": ClientPage(models.list),
        "/models": ClientPage(models.list),
        "/v1/usage": ClientPage(usage.own),
    }


def prefixes(models: ModelPages) -> Mapping[str, ClientPage]:
    """Prefix of a path -> page, for paths that end in a name."""
    return {"/v1/models/": ClientPage(models.one), "/models/": ClientPage(models.one)}


def entries(settings: Settings) -> Mapping[str, Entry]:
    """Path -> inference entry: every path of the contract, and the named routes."""
    table = {path: Entry(row) for path, row in INFERENCE_PATHS.items()}
    for route in settings.routes:
        table[route.path] = Entry(BY_UPSTREAM[route.upstream_path], route.model)
    return table


class Dispatch:
    """Finds the handler of a request and has it answered, one way or another.

    `active` counts the inference requests that are under way; `idle` is set while there are none.
    """

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        door: Door,
        guard: StatusGuard,
        status: StatusPages,
        models: ModelPages,
        usage: UsagePages,
        settings: Settings,
    ) -> None:
        self._pipeline = pipeline
        self._door = door
        self._guard = guard
        self._pages = pages(status, models, usage)
        self._prefixes = prefixes(models)
        self._entries = entries(settings)
        self.active = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def configure(self, settings: Settings) -> None:
        """Take over the named routes of new settings."""
        self._entries = entries(settings)

    async def serve(self, request: web.BaseRequest, downstream: Downstream) -> web.StreamResponse:
        """Answer `request`."""
        connection = request.protocol
        assert isinstance(connection, ClientConnection)
        exchange = ClientExchange(request, connection, downstream, monotonic())
        path = request.raw_path.partition("?")[0]
        entry = self._entries.get(path)
        if entry is None:
            return await self._serve_page(request, path, exchange)
        if request.method != "POST":
            exchange.refuse(_wrong_method(request.method, path, "POST"), entry.path.dialect)
            return exchange.ended()
        self.active += 1
        self.idle.clear()
        try:
            await self._pipeline.serve(exchange, entry)
        finally:
            self.active -= 1
            if not self.active:
                self.idle.set()
        return exchange.ended()

    async def _serve_page(
        self, request: web.BaseRequest, path: str, exchange: ClientExchange
    ) -> web.StreamResponse:
        try:
            page = self._find(path)
            if request.method not in {"GET", "HEAD"}:
                raise _wrong_method(request.method, path, "GET, HEAD")
            answer = await self._answer(page, request, exchange)
        except RouterError as error:
            exchange.refuse(error, Dialect.OPENAI)
            return exchange.ended()
        answer.headers["x-request-id"] = exchange.request_id.decode()
        answer.headers["server"] = "router"
        exchange.ended()
        return answer

    async def _answer(
        self, page: Page | ClientPage, request: web.BaseRequest, exchange: ClientExchange
    ) -> web.StreamResponse:
        if isinstance(page, ClientPage):
            identity = self._door.enter(
                exchange.client, exchange.header(b"authorization"), exchange.header(b"x-api-key")
            )
            return await page.handler(request, identity)
        if page.guarded:
            self._guard.check(request, exchange.address)
        return await page.handler(request)

    def _find(self, path: str) -> Page | ClientPage:
        page = self._pages.get(path)
        if page is not None:
            return page
        for prefix, named in self._prefixes.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return named
        raise UnknownPath(f"There is no path {path[:200]!r} here.")


def _wrong_method(method: str, path: str, allow: str) -> MethodNotAllowed:
    return MethodNotAllowed(f"{path} takes {allow}, not {method[:20]}.", allow=allow)
