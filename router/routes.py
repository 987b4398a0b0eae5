"""The one table of paths: what the router answers, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.access.door import Door
from router.access.identity import Identity
from router.api.access import StatusGuard
from router.api.answer import Answer, Asking
from router.api.models import ModelPages
from router.api.pages import StatusPages
from router.api.usage import UsagePages
from router.config.settings import Settings
from router.errors import MethodNotAllowed, RouterError, UnknownPath
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS
from router.proxy.admit import Entry
from router.proxy.client import ClientExchange
from router.proxy.pipeline import Pipeline

PageHandler = Callable[[Asking], Answer]
ClientPageHandler = Callable[[Asking, Identity], Answer]


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
    """Finds who answers a request, and has it answered."""

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

    def configure(self, settings: Settings) -> None:
        """Take over the named routes of new settings."""
        self._entries = entries(settings)

    def head(self, exchange: ClientExchange) -> None:
        """Refuse what can be refused before its body comes.

        Raises:
            RouterError: the answer.
        """
        entry = exchange.entry = self._entries.get(exchange.path)
        if entry is None:
            page = self._find(exchange.path)
            if exchange.method not in {b"GET", b"HEAD"}:
                raise _wrong_method(exchange, "GET, HEAD")
            if isinstance(page, ClientPage):
                exchange.identity = self._door.enter(
                    exchange.client,
                    exchange.header(b"authorization"),
                    exchange.header(b"x-api-key"),
                )
            elif page.guarded:
                self._guard.check(exchange)
            return
        exchange.dialect = entry.path.dialect
        if exchange.method != b"POST":
            raise _wrong_method(exchange, "POST")
        exchange.identity = self._pipeline.enter(exchange)

    def request(self, exchange: ClientExchange) -> None:
        """Answer a whole request that `head` has let pass."""
        entry, identity = exchange.entry, exchange.identity
        if entry is not None:
            assert identity is not None
            self._pipeline.serve(exchange, entry, identity)
            return
        page = self._find(exchange.path)
        try:
            if isinstance(page, ClientPage):
                assert identity is not None
                answer = page.handler(exchange, identity)
            else:
                answer = page.handler(exchange)
        except RouterError as error:
            exchange.refuse(error)
        else:
            exchange.answer(answer.status, answer.content_type, answer.body)

    def _find(self, path: str) -> Page | ClientPage:
        page = self._pages.get(path)
        if page is not None:
            return page
        for prefix, named in self._prefixes.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return named
        raise UnknownPath(f"There is no path {path[:200]!r} here.")


def _wrong_method(exchange: ClientExchange, allow: str) -> MethodNotAllowed:
    method = exchange.method[:20].decode("latin-1")
    return MethodNotAllowed(f"{exchange.path} takes {allow}, not {method}.", allow=allow)
