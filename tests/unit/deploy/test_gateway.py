"""What nginx does before the router: TLS, HTTP/2, nothing held back, nothing believed."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from support.daemon import free_port
from support.upstream import Gate, ScriptedUpstream, Send
from support.wire import DONE, LAST_CHUNK, answer, chunk, event, stream_head
from unit.deploy.gateway import NGINX, Gateway

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
CHAT = "/v1/chat/completions"
GUARDED = ("/metrics", "/stats", "/services", "/api/x", "/explain", "/dashboard", "/dashboard/live")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as router:
        yield router


@pytest.fixture(scope="module")
def gateway(
    upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), upstream.port) as nginx:
        yield nginx


@pytest.fixture
def client(gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[httpx2.Client]:
    upstream.forget()
    upstream.script = lambda _: [Send(answer({}))]
    with gateway.client() as client:
        yield client


def test_http_2_is_spoken(client: httpx2.Client) -> None:
    assert client.get("/v1/usage").http_version == "HTTP/2"


def test_an_event_is_passed_on_before_the_next_one_is_made(
    client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    first, second = event({"n": 1}), event({"n": 2})
    gate = Gate()
    # As an outer engine might ask: it must not turn buffering on.
    head = stream_head().replace(b"\r\n\r\n", b"\r\nX-Accel-Buffering: yes\r\n\r\n")
    upstream.script = lambda _: [
        Send(head + chunk(first)),
        gate,
        Send(chunk(second) + chunk(DONE) + LAST_CHUNK),
    ]
    with client.stream("POST", CHAT, json={}) as response:
        pieces = response.iter_raw()
        assert next(pieces) == first
        gate.open()
        assert b"".join(pieces) == second + DONE
    assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("path", [*GUARDED, "/%6detrics", "//metrics", "/v1/../services"])
def test_pages_for_operators_are_not_there_for_others(
    client: httpx2.Client, upstream: ScriptedUpstream, path: str
) -> None:
    place = {"scheme": "https", "host": "localhost", "port": client.base_url.port}
    response = client.get(httpx2.URL(raw_path=path.encode(), **place))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_path"
    assert upstream.requests == []


def test_operators_reach_their_pages(
    upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    upstream.script = lambda _: [Send(answer({}))]
    folder = tmp_path_factory.mktemp("operators")
    with Gateway(folder, upstream.port, "10.9.0.0/16 127.0.0.0/8") as nginx, nginx.client() as own:
        assert [own.get(path).status_code for path in GUARDED] == [200] * len(GUARDED)


def test_a_client_cannot_say_who_it_is(client: httpx2.Client, upstream: ScriptedUpstream) -> None:
    lies = {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1",
            "x-forwarded-proto": "http"}  # fmt: skip
    client.post(CHAT, json={}, headers=lies | {"authorization": "Bearer sk-1"})
    (request,) = upstream.requests
    names = [name for name, _ in request.headers]
    assert names.count("x-forwarded-for") == 1
    assert request.header("x-forwarded-for") == "127.0.0.1"  # the peer's, as it happens
    assert request.header("x-forwarded-proto") == "https"
    assert not {"x-real-ip", "forwarded"} & set(names)
    assert request.header("authorization") == "Bearer sk-1"


def test_a_chain_of_addresses_is_not_passed_on(
    client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    client.post(CHAT, json={}, headers={"x-forwarded-for": "203.0.113.9, 203.0.113.10"})
    assert upstream.requests[0].header("x-forwarded-for") == "127.0.0.1"


def test_an_engine_cannot_send_nginx_elsewhere(
    client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    redirected = answer({"own": True}).replace(
        b"\r\n\r\n", b"\r\nX-Accel-Redirect: /v1/models\r\n\r\n", 1
    )
    upstream.script = lambda _: [Send(redirected)]
    assert client.post(CHAT, json={}).json() == {"own": True}


def test_connections_to_the_router_are_used_again(
    client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    for _ in range(5):
        client.post(CHAT, json={})
    assert len({request.connection for request in upstream.requests}) == 1


def test_a_body_that_is_too_large_is_refused_in_openai_s_form(gateway: Gateway) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {33 * 1024 * 1024}\r\n\r\n"
    with gateway.connection() as connection:
        connection.sendall(head.encode())
        status, _, body = connection.makefile("rb").read(2000).partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "request_too_large"


LARGE_AT_ONCE = 20


def opened(gateway: Gateway, held: ExitStack, head: str, body: bytes) -> ssl.SSLSocket:
    """A connection that has sent a head and the beginning of a body."""
    connection = held.enter_context(gateway.connection())
    connection.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n".encode() + body)
    return connection


@pytest.mark.parametrize("head", ["content-length: 300000", "transfer-encoding: chunked"])
def test_an_address_sends_a_few_large_bodies_at_once_and_small_ones_beside_them(
    gateway: Gateway, client: httpx2.Client, head: str
) -> None:
    with ExitStack() as held:
        for _ in range(LARGE_AT_ONCE):
            opened(gateway, held, head, b"")
        one_more = opened(gateway, held, head, b"")
        answered = one_more.recv(2000)
        assert answered.startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 1\r\n" in answered
        assert client.post(CHAT, json={}).status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_many_requests_with_small_bodies_pass_at_once(
    gateway: Gateway, client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script = lambda _: [gate, Send(answer({}))]
    body = b"{" + b" " * 90_000 + b"}"
    with ExitStack() as held:
        sent = [
            opened(gateway, held, f"content-length: {len(body)}", body)
            for _ in range(LARGE_AT_ONCE + 4)
        ]
        gate.open()
        answers = [connection.recv(100) for connection in sent]
    assert {line[:12] for line in answers} == {b"HTTP/1.1 200"}


def test_the_router_s_own_errors_pass_as_they_are(
    client: httpx2.Client, upstream: ScriptedUpstream
) -> None:
    for status in (403, 404, 413, 429, 502, 503, 504):
        upstream.script = lambda _, status=status: [Send(answer({"own": True}, status=status))]
        response = client.post(CHAT, json={})
        assert (response.status_code, response.json()) == (status, {"own": True})


def test_a_router_that_is_not_there_is_told_in_openai_s_form(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("alone")
    with Gateway(folder, free_port()) as nginx, nginx.client() as client:
        response = client.post(CHAT, json={})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["error"]["code"] == "overloaded"


def test_plain_http_is_sent_to_https_with_its_method(gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.http}{CHAT}?a=b"
    response = httpx2.post(url, json={}, follow_redirects=False)
    assert response.status_code == 308
    assert response.headers["location"] == f"https://127.0.0.1:{gateway.https}{CHAT}?a=b"


def test_neither_key_nor_query_is_logged(gateway: Gateway, client: httpx2.Client) -> None:
    client.post(f"{CHAT}?secret=query", json={}, headers={"authorization": "Bearer sk-in-log"})
    last = json.loads(gateway.log.splitlines()[-1])
    assert last["path"] == CHAT
    assert last["status"] == 200
    assert "sk-in-log" not in gateway.log
    assert "secret=query" not in gateway.log
