"""The table of paths: which handler a request gets, what guards it, and how wrong ones are told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from router.access.identity import ANONYMOUS
from router.api.answer import Answer
from router.config.settings import RouteSettings, Settings
from router.errors import (
    BadGateway,
    BadRequest,
    InvalidApiKey,
    MethodNotAllowed,
    MissingApiKey,
    RateLimitExceeded,
    RequestTooLarge,
    RouterError,
    UnknownPath,
)
from router.openai.paths import INFERENCE_PATHS, Dialect
from router.routes import Dispatch

DASHBOARD = ("page", "asset", "session", "log_in", "log_out")
SQL = Settings(routes=(RouteSettings(path="/text2sql", model="sql"),))


class Exchange:
    """A request; writes down its answer."""

    def __init__(self, path: str, method: str, headers: dict[str, str]) -> None:
        self.path = path
        self.method = method.encode()
        self.headers = headers
        self.noted: dict[bytes, bytes] = {}
        self.badge = None
        self.client = 7
        self.address = None
        self.dialect = Dialect.OPENAI
        self.entry = self.identity = None
        self.rate_lines = b""
        self.answered: list[tuple[int, str, bytes]] = []
        self.refused: list[RouterError] = []

    def header(self, name: bytes) -> str | None:
        return self.headers.get(name.decode())

    def refuse(self, error: RouterError) -> None:
        self.refused.append(error)

    def answer(self, status: int, content_type: str, body: bytes, lines: bytes) -> None:
        self.answered.append((status, content_type, body))


class House:
    """A dispatch whose pages answer with their own names, and whose pipeline notes the entry."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.guarded = 0
        self.begun: list[str] = []
        self.served: list[tuple] = []
        self.error: RouterError | None = None
        self.page_error: RouterError | None = None
        names = ("health", "live", "ready", "services", "stats", "metrics")
        self.dispatch = Dispatch(
            pipeline=SimpleNamespace(
                enter=self.begin, serve=self.serve, rate_lines=lambda *_: b"x-left: 1\r\n"
            ),
            door=SimpleNamespace(count=self.count),
            guard=SimpleNamespace(check=self.check, check_admin=self.check),
            status=SimpleNamespace(**{name: self.page(name) for name in names}),
            models=SimpleNamespace(list=self.page("list"), one=self.page("one")),
            usage=SimpleNamespace(own=self.page("own")),
            dashboard=SimpleNamespace(
                **{name: self.page(name) for name in DASHBOARD}, live=self.socket
            ),
            docs=SimpleNamespace(
                **{name: self.page(name) for name in ("openapi", "page", "style")}
            ),
            explain=SimpleNamespace(explain=self.page("explain")),
            settings=SQL,
            instance="i-1",
        )

    def page(self, name: str):
        def answer(_asking, identity=None) -> Answer:
            if self.page_error is not None:
                raise self.page_error
            return Answer(name.encode() if identity is None else f"{name} for a key".encode())

        return answer

    def socket(self, asking) -> str:
        self._maybe_fail()
        return f"a WebSocket for {asking.path}"

    def _maybe_fail(self) -> None:
        if self.error is not None:
            raise self.error

    def count(self, client) -> None:
        self._maybe_fail()
        self.counted.append(client)

    def check(self, _asking) -> None:
        self._maybe_fail()
        self.guarded += 1

    def begin(self, exchange):
        self._maybe_fail()
        self.begun.append(exchange.path)
        return ANONYMOUS

    def serve(self, exchange, entry, identity) -> None:
        assert identity is ANONYMOUS
        self.served.append(entry)

    def head(self, path: str, method: str = "GET", **headers: str) -> Exchange:
        exchange = Exchange(path, method, headers)
        if "x-router-via" in headers:
            exchange.noted[b"x-router-via"] = headers["x-router-via"].encode()
        self.dispatch.head(exchange)
        return exchange

    def get(self, path: str, **headers: str) -> str:
        """The page's body."""
        exchange = self.head(path, **headers)
        self.dispatch.request(exchange)
        ((status, content_type, body),) = exchange.answered
        assert (status, content_type) == (200, "application/json")
        return body.decode()

    def post(self, path: str) -> None:
        exchange = self.head(path, "POST")
        self.dispatch.request(exchange)
        assert (exchange.answered, exchange.refused) == ([], [])


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize("path", sorted(INFERENCE_PATHS))
def test_every_inference_path_goes_through_the_pipeline(house, path):
    house.post(path)
    assert [(entry.path, entry.model) for entry in house.served] == [(INFERENCE_PATHS[path], None)]


@pytest.mark.parametrize("via", ["i-1", "i-7,i-1", "i-1, i-7"])
def test_what_this_router_has_sent_itself_is_refused(house, via):
    with pytest.raises(BadGateway, match="came back to this router"):
        house.head("/v1/chat/completions", "POST", **{"x-router-via": via})


def test_what_other_routers_have_sent_passes(house):
    house.head("/v1/chat/completions", "POST", **{"x-router-via": "i-7,i-8"})
    assert house.begun == ["/v1/chat/completions"]


def test_a_named_route_has_its_own_model_and_upstream_path(house):
    house.post("/text2sql")
    (entry,) = house.served
    assert (entry.path.upstream, entry.model) == ("/v1/chat/completions", "sql")


def test_an_inference_request_is_let_in_at_its_head_and_served_with_its_body(house):
    exchange = house.head("/v1/embeddings", "POST")
    assert (house.begun, house.served) == (["/v1/embeddings"], [])
    house.dispatch.request(exchange)
    assert len(house.served) == 1


def test_who_is_not_let_in_is_told_at_the_head(house):
    house.error = MissingApiKey("none")
    with pytest.raises(MissingApiKey):
        house.head("/v1/embeddings", "POST")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "post", ""])
def test_inference_takes_post_alone(house, method):
    with pytest.raises(MethodNotAllowed) as caught:
        house.head("/v1/chat/completions", method)
    assert ("Allow", "POST") in caught.value.headers()
    assert house.begun == []


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "get"])
@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/x"])
def test_pages_take_get_and_head_alone(house, method, path):
    with pytest.raises(MethodNotAllowed) as caught:
        house.head(path, method)
    assert ("Allow", "GET, HEAD") in caught.value.headers()
    assert (house.guarded, house.begun) == (0, [])


def test_a_refusal_at_the_head_is_told_in_the_paths_own_form(house):
    exchange = Exchange("/v1/messages", "GET", {})
    with pytest.raises(MethodNotAllowed):
        house.dispatch.head(exchange)
    assert exchange.dialect is Dialect.ANTHROPIC


def test_what_is_refused_before_its_path_was_looked_at_is_told_in_the_paths_own_form(house):
    exchange = Exchange("/v1/messages", "POST", {})
    house.dispatch.refusing(exchange)
    assert exchange.dialect is Dialect.ANTHROPIC


@pytest.mark.parametrize(
    ("path", "lines"),
    [("/v1/embeddings", b"x-left: 1\r\n"), ("/text2sql", b"x-left: 1\r\n"),
     ("/v1/models", b""), ("/health", b""), ("/nope", b"")],
)  # fmt: skip
def test_a_refused_inference_request_alone_is_told_what_is_left(house, path, lines):
    exchange = Exchange(path, "POST", {})
    house.dispatch.refusing(exchange)
    assert exchange.rate_lines == lines


def test_what_is_left_is_told_as_the_pipeline_has_told_it(house):
    exchange = Exchange("/v1/embeddings", "POST", {})
    exchange.rate_lines = b"x-left: 0\r\n"
    house.dispatch.refusing(exchange)
    assert exchange.rate_lines == b"x-left: 0\r\n"


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/v1", "/v1/", "/nope", "/v1/chat", "/v1/chat/completions/", "//v1/models",
        "/V1/models", "/v1/models/", "/models/", "/health/", "/invocations", "/sleep",
        "/v1/chat/completions%20", "http://host/v1/models",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_in_the_table_is_unknown_and_reaches_nothing(house, path, method):
    with pytest.raises(UnknownPath):
        house.head(path, method)
    assert (house.begun, house.counted, house.guarded) == ([], [], 0)


def test_a_long_unknown_path_is_not_repeated_whole(house):
    with pytest.raises(UnknownPath) as caught:
        house.head("/" + "x" * 9000)
    assert len(caught.value.message) < 400


def test_a_long_path_with_a_wrong_method_is_not_repeated_whole(house):
    with pytest.raises(MethodNotAllowed) as caught:
        house.head("/v1/models/" + "x" * 9000, "POST")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_open(house, path):
    house.error = MissingApiKey("never asked")
    assert house.get(path)


@pytest.mark.parametrize("path", ["/services", "/stats", "/metrics"])
def test_operators_pages_are_guarded(house, path):
    assert house.get(path) == path[1:]
    assert house.guarded == 1
    house.error = InvalidApiKey("not the admin key")
    with pytest.raises(InvalidApiKey):
        house.head(path)


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
def test_clients_pages_are_entered_as_inference_is(house, path, page):
    assert house.get(path) == f"{page} for a key"
    assert house.begun == [path]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_wrong_method_counts_for_the_rate_where_the_right_one_does(house, path):
    with pytest.raises(MethodNotAllowed):
        house.head(path, "DELETE")
    assert house.counted == [7]
    house.error = RateLimitExceeded("too fast", retry_after_s=1)
    with pytest.raises(RateLimitExceeded):
        house.head(path, "DELETE")


def test_a_wrong_method_on_a_status_page_counts_for_nothing(house):
    with pytest.raises(MethodNotAllowed):
        house.head("/health", "DELETE")
    assert house.counted == []


def test_who_comes_too_often_is_refused_on_clients_pages_too(house):
    house.error = RateLimitExceeded("too fast", retry_after_s=1)
    with pytest.raises(RateLimitExceeded):
        house.head("/v1/models")


def test_a_page_that_refuses_is_an_answer(house):
    house.page_error = UnknownPath("no such model")
    exchange = house.head("/v1/models/x")
    house.dispatch.request(exchange)
    assert exchange.refused == [house.page_error]
    assert exchange.answered == []


def test_new_settings_bring_new_routes_and_take_old_ones_away(house):
    house.dispatch.configure(Settings(routes=(RouteSettings(path="/new", model="n"),)))
    with pytest.raises(UnknownPath):
        house.head("/text2sql", "POST")
    house.post("/new")
    assert house.served[0].model == "n"


def test_a_request_whose_route_goes_while_its_body_comes_is_served(house):
    exchange = house.head("/text2sql", "POST")
    house.dispatch.configure(Settings())
    house.dispatch.request(exchange)
    assert house.served[0].model == "sql"


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/dashboard", "page"),
        ("/dashboard/", "page"),
        ("/dashboard/app.js", "asset"),
        ("/dashboard/session", "session"),
    ],
)
def test_the_dashboards_files_are_open(house, path, page):
    house.error = MissingApiKey("never asked")
    assert house.get(path) == page


@pytest.mark.parametrize(
    ("path", "page"),
    [("/openapi.json", "openapi"), ("/docs", "page"), ("/docs/docs.css", "style")],
)
def test_the_reference_is_open(house, path, page):
    house.error = MissingApiKey("never asked")
    assert house.get(path) == page


def test_explain_asks_for_the_admin_key_before_the_body_comes(house):
    house.head("/explain", "POST")
    assert house.guarded == 1
    house.error = MissingApiKey("no")
    with pytest.raises(MissingApiKey):
        house.head("/explain", "POST")


@pytest.mark.parametrize(
    ("path", "page"), [("/dashboard/login", "log_in"), ("/dashboard/logout", "log_out")]
)
def test_a_posted_page_takes_a_small_body(house, path, page):
    exchange = house.head(path, "POST", **{"content-length": "4096"})
    house.dispatch.request(exchange)
    assert exchange.answered == [(200, "application/json", page.encode())]


def test_a_posted_page_refuses_a_large_body_at_its_head(house):
    with pytest.raises(RequestTooLarge):
        house.head("/dashboard/login", "POST", **{"content-length": "4097"})


def test_a_posted_page_refuses_a_body_of_unknown_length_at_its_head(house):
    with pytest.raises(BadRequest):
        house.head("/dashboard/login", "POST")


def test_a_posted_page_takes_post_alone(house):
    with pytest.raises(MethodNotAllowed) as caught:
        house.head("/dashboard/login", "GET")
    assert ("Allow", "POST") in caught.value.headers()


def test_the_live_view_is_a_websocket(house):
    exchange = Exchange("/dashboard/live", "GET", {})
    assert house.dispatch.upgrade(exchange) == "a WebSocket for /dashboard/live"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/dashboard/live"), ("GET", "/v1/models"), ("GET", "/nope")]
)
def test_nothing_else_leaves_http(house, method, path):
    house.error = MissingApiKey("never asked")
    assert house.dispatch.upgrade(Exchange(path, method, {})) is None


def test_who_may_not_look_gets_no_websocket(house):
    house.error = MissingApiKey("log in")
    with pytest.raises(MissingApiKey):
        house.dispatch.upgrade(Exchange("/dashboard/live", "GET", {}))


@pytest.mark.parametrize("path", ["/health", "/dashboard", "/v1/models", "/docs"])
@pytest.mark.parametrize(
    "noted", [{b"content-length": b"5000"}, {b"transfer-encoding": b"chunked"}]
)
def test_a_page_takes_no_body(house, path, noted):
    exchange = Exchange(path, "GET", {})
    exchange.noted = noted
    with pytest.raises(BadRequest):
        house.dispatch.head(exchange)
