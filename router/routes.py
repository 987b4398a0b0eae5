"""The one table of paths: what the router answers, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.access.door import Door
from router.access.identity import Identity
from router.api.access import StatusGuard
from router.api.answer import Answer, Asking
from router.api.docs import DocsPages
from router.api.explain import ExplainPages
from router.api.models import ModelPages
from router.api.pages import StatusPages
from router.api.usage import UsagePages
from router.config.settings import Settings
from router.dashboard.dashboard import Dashboard
from router.errors import (
    BadGateway,
    BadRequest,
    MethodNotAllowed,
    RequestTooLarge,
    RouterError,
    UnknownPath,
)
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS
from router.proxy.admit import Entry
from router.proxy.client import ClientExchange
from router.proxy.headers import PASSED
from router.proxy.pipeline import Pipeline
from router.proxy.websocket import Upgrade

_MAX_FORM_BYTES = 4096

PageHandler = Callable[[Asking], Answer]
ClientPageHandler = Callable[[Asking, Identity], Answer]


@dataclass(frozen=True, slots=True)
class Page:
    """A path that is not inference; GET and HEAD.

    Attributes:
        handler: answers it.
        guarded: only for `server.status_allow` (default: loopback) and the admin key.
    """

    handler: PageHandler
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class ClientPage:
    """A page for clients: it counts for the rate of an address and asks for a key."""

    handler: ClientPageHandler


@dataclass(frozen=True, slots=True)
class PostPage:
    """A path that takes a body and is not inference; POST.

    Attributes:
        handler: answers it.
        max_bytes: of its body, whose length must be told; None: as for inference.
        check: called at the head, before the body is taken in; raises where it goes no further.
    """

    handler: PageHandler
    max_bytes: int | None = None
    check: Callable[[Asking], None] | None = None


AnyPage = Page | ClientPage | PostPage
Socket = Callable[[Asking], Upgrade]


def pages(
    status: StatusPages, models: ModelPages, usage: UsagePages, dashboard: Dashboard
) -> Mapping[str, AnyPage]:
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
        "/dashboard": Page(dashboard.page),
        "/dashboard/": Page(dashboard.page),
        "/dashboard/session": Page(dashboard.session),
        "/dashboard/login": PostPage(dashboard.log_in, max_bytes=_MAX_FORM_BYTES),
        "/dashboard/logout": PostPage(dashboard.log_out, max_bytes=_MAX_FORM_BYTES),
    }


def reference(docs: DocsPages, explain: ExplainPages, guard: StatusGuard) -> Mapping[str, AnyPage]:
    """Path -> page, of what explains the router itself."""
    return {
        "/openapi.json": Page(docs.openapi),
        "/docs": Page(docs.page),
        "/docs/docs.css": Page(docs.style),
        "/explain": PostPage(explain.explain, check=guard.check_admin),
    }


def prefixes(models: ModelPages, dashboard: Dashboard) -> Mapping[str, AnyPage]:
    """Prefix of a path -> page, for paths that end in a name."""
    return {
        "/v1/models/": ClientPage(models.one),
        "/models/": ClientPage(models.one),
        "/dashboard/": Page(dashboard.asset),
    }


def sockets(dashboard: Dashboard) -> Mapping[str, Socket]:
    """Path -> who speaks WebSocket there."""
    return {"/dashboard/live": dashboard.live}


def entries(settings: Settings) -> Mapping[str, Entry]:
    """Path -> inference entry: every path of the contract, and the named routes."""
    table = {path: Entry(row) for path, row in INFERENCE_PATHS.items()}
    for route in settings.routes:
        table[route.path] = Entry(BY_UPSTREAM[route.upstream_path], route.model)
    return table


class Dispatch:
    """Finds who answers a request, and has it answered.

    Args, beside those who answer:
        settings: the named routes.
        instance: what this router calls itself where it sends a request.
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
        dashboard: Dashboard,
        docs: DocsPages,
        explain: ExplainPages,
        settings: Settings,
        instance: str,
    ) -> None:
        self._pipeline = pipeline
        self._door = door
        self._guard = guard
        self._pages = {
            **pages(status, models, usage, dashboard),
            **reference(docs, explain, guard),
        }
        self._prefixes = prefixes(models, dashboard)
        self._sockets = sockets(dashboard)
        self._entries = entries(settings)
        self._instance = instance.encode()

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
            if isinstance(page, PostPage):
                _check_post(exchange, page)
                return
            if exchange.method not in {b"GET", b"HEAD"}:
                if isinstance(page, ClientPage):
                    self._door.count(exchange.client)
                raise _wrong_method(exchange, "GET, HEAD")
            _check_no_body(exchange)
            if isinstance(page, ClientPage):
                exchange.identity = self._pipeline.enter(exchange)
            elif page.guarded:
                self._guard.check(exchange)
            return
        exchange.dialect = entry.path.dialect
        if exchange.method != b"POST":
            self._door.count(exchange.client)
            raise _wrong_method(exchange, "POST")
        exchange.identity = self._pipeline.enter(exchange)
        if PASSED in exchange.noted:
            self._check_not_back(exchange)

    def _check_not_back(self, exchange: ClientExchange) -> None:
        """Refuse what this router has sent itself: it would go round until nothing is left.

        Raises:
            BadGateway: it has come back, through another router.
        """
        if self._instance in exchange.noted[PASSED]:
            raise BadGateway(
                "The request came back to this router: the url of a service leads to a router that "
                "has this one among its own services. Take one of the two out."
            )

    def again(self, exchange: ClientExchange) -> None:
        """Look once more at who asks, where a request has waited for those before it.

        Raises:
            RouterError: its key does not count any more.
        """
        if exchange.identity is not None:
            exchange.identity = self._door.identify(
                exchange.header(b"authorization"), exchange.header(b"x-api-key"), exchange.badge
            )

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
            exchange.answer(answer.status, answer.content_type, answer.body, answer.lines)

    def refusing(self, exchange: ClientExchange) -> None:
        """An answer for inference has its path's form, and tells a key what it has left."""
        entry = exchange.entry = exchange.entry or self._entries.get(exchange.path)
        if entry is not None:
            exchange.dialect = entry.path.dialect
            if not exchange.rate_lines:
                exchange.rate_lines = self._pipeline.rate_lines(exchange, exchange.identity)

    def upgrade(self, exchange: ClientExchange) -> Upgrade | None:
        """Who goes on with a connection in another protocol; None where nobody does.

        Raises:
            RouterError: somebody does, but not for this client.
        """
        socket = self._sockets.get(exchange.path)
        if socket is None or exchange.method != b"GET":
            return None
        return socket(exchange)

    def _find(self, path: str) -> AnyPage:
        page = self._pages.get(path)
        if page is not None:
            return page
        for prefix, named in self._prefixes.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return named
        raise UnknownPath(f"There is no path {path[:200]!r} here.")


def _check_post(exchange: ClientExchange, page: PostPage) -> None:
    """Refuse what can be refused before the body of a POST page comes."""
    if exchange.method != b"POST":
        raise _wrong_method(exchange, "POST")
    if page.check is not None:
        page.check(exchange)
    if page.max_bytes is not None:
        length = exchange.header(b"content-length")
        if length is None:
            raise BadRequest(f"{exchange.path} needs the header Content-Length.")
        if int(length) > page.max_bytes:
            raise RequestTooLarge(f"The body of {exchange.path} is over {page.max_bytes} bytes.")


def _check_no_body(exchange: ClientExchange) -> None:
    """A page needs no body, so nobody may have the router keep one for it; a small one is ignored.

    Raises:
        BadRequest: it has one.
    """
    length = exchange.noted.get(b"content-length", b"0")
    if b"transfer-encoding" in exchange.noted or int(length) > _MAX_FORM_BYTES:
        raise BadRequest(f"{exchange.path[:200]} takes no body.")


def _wrong_method(exchange: ClientExchange, allow: str) -> MethodNotAllowed:
    method = exchange.method[:20].decode("latin-1")
    return MethodNotAllowed(f"{exchange.path[:200]} takes {allow}, not {method}.", allow=allow)
