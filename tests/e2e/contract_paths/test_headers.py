"""What crosses beside the body, in both directions, and what every answer carries."""

from __future__ import annotations

import json
import re

import pytest

from support.daemon import Daemon
from support.fleet import BIG, OTHER, PATH, ask
from support.http import Client, Response, call, chat
from support.upstream import Send
from support.wire import answer


def test_a_clients_credentials_and_cookies_never_cross(router, engines):
    secrets = (
        ("authorization", "Bearer client-secret"), ("x-api-key", "client-secret"),
        ("cookie", "session=client-secret"), ("proxy-authorization", "Basic client-secret"),
        ("api-key", "client-secret"),
    )  # fmt: skip
    assert ask(router, PATH, BIG, *secrets).status == 200
    assert ask(router, PATH, OTHER, *secrets).status == 200
    [to_chat], [to_sql] = engines["chat"].requests, engines["sql"].requests
    assert b"client-secret" not in to_chat.raw + to_sql.raw
    assert to_chat.header("authorization") == "Bearer engine-key"
    assert to_sql.header("authorization") is None


def test_probes_carry_the_engines_key(router, engines):
    assert all(
        p.header("authorization") == "Bearer engine-key" for p in engines["chat"].seen.probes
    )


def test_hop_by_hop_and_connection_named_headers_do_not_cross(router, engines):
    hops = (
        ("connection", "keep-alive, X-Secret-Hop"), ("x-secret-hop", "1"), ("keep-alive", "9"),
        ("te", "trailers"), ("trailer", "x"), ("upgrade", "h2c"), ("proxy-connection", "close"),
    )  # fmt: skip
    response = ask(router, PATH, BIG, *hops)
    assert response.status == 200
    names = {name for name, _ in engines["chat"].requests[0].headers}
    assert not names & {name for name, _ in hops} - {"connection"}
    assert engines["chat"].requests[0].header("connection") in {None, "keep-alive"}


@pytest.mark.parametrize("named", ["content-length", "host", "authorization", "content-type"])
def test_connection_cannot_name_away_what_the_engine_needs(router, engines, named):
    assert ask(router, PATH, BIG, ("connection", named)).status in range(200, 500)
    for request in engines["chat"].requests:
        assert request.body == json.dumps(chat(BIG)).encode()
        assert request.header("authorization") == "Bearer engine-key"


def test_what_is_end_to_end_crosses(router, engines):
    headers = (
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"), ("anthropic-version", "2023-06-01"), ("user-agent", "test/1"),
        ("x-custom", "a"), ("x-custom", "b"), ("accept", "application/json"),
    )  # fmt: skip
    assert ask(router, PATH, BIG, *headers).status == 200
    assert set(headers) <= set(engines["chat"].requests[0].headers)


def test_the_engine_gets_one_host_and_one_length(router, engines):
    assert ask(router).status == 200
    request = engines["chat"].requests[0]
    names = [name for name, _ in request.headers]
    assert names.count("host") == names.count("content-length") == 1
    assert request.header("host") == engines["chat"].url.removeprefix("http://")
    assert "transfer-encoding" not in names


def test_a_chunked_request_reaches_the_engine_with_a_length(router, engines):
    body = json.dumps(chat(BIG)).encode()
    framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:10], body[10:]))
    from_client = (("transfer-encoding", "chunked"), ("content-type", "application/json"))
    lines = "".join(f"{n}: {v}\r\n" for n, v in (("host", "h"), *from_client))
    response = raw(router, f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + framed + b"0\r\n\r\n")
    assert response.status == 200
    assert engines["chat"].requests[0].body == body
    assert engines["chat"].requests[0].header("content-length") == str(len(body))


def test_expect_100_continue_is_answered_and_does_not_cross(router, engines):
    body = json.dumps(chat(BIG)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n"
    with Client(router.port) as client:
        client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert client.response().read().status == 200
    assert engines["chat"].requests[0].header("expect") is None


def raw(router: Daemon, data: bytes) -> Response:
    with Client(router.port) as client:
        client.send(data)
        return client.response().read()


def test_an_engines_hop_by_hop_headers_end_at_the_router(router, engines):
    own = (("connection", "x-engine-hop"), ("x-engine-hop", "1"), ("keep-alive", "timeout=5"),
           ("x-engine", "a"), ("x-engine", "b"), ("set-cookie", "a=1"),
           ("set-cookie", "b=2"))  # fmt: skip
    engines["chat"].script = lambda _: [Send(answer({"id": 1}, headers=own))]
    response = ask(router)
    assert response.json == {"id": 1}
    names = [name for name, _ in response.headers]
    assert not {"x-engine-hop", "keep-alive"} & set(names)
    assert names.count("x-engine") == 2
    assert [v for n, v in response.headers if n == "set-cookie"] == ["a=1", "b=2"]


# -- what every answer carries ---------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["a", "req-1.2_3:4", "A" * 128])
def test_a_sane_request_id_is_kept_and_crosses(router, engines, sent):
    assert ask(router, PATH, BIG, ("x-request-id", sent)).header("x-request-id") == sent
    assert engines["chat"].requests[0].header("x-request-id") == sent


@pytest.mark.parametrize("sent", ["", "a b", "é", "A" * 129, "a,b", "<x>", "a\tb"])
def test_any_other_request_id_is_made_anew(router, engines, sent):
    response = ask(router, PATH, BIG, ("x-request-id", sent.encode().decode("latin-1")))
    made = response.header("x-request-id")
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{8,128}", made)
    assert engines["chat"].requests[0].header("x-request-id") == made


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("GET", "/v1/models"), ("GET", "/nope"), ("DELETE", PATH),
     ("GET", "/services"), ("GET", "/stats"), ("GET", "/metrics")],
)  # fmt: skip
def test_every_answer_carries_a_request_id(router, method, path):
    response = call(router.port, method, path, None, (("x-request-id", "mine"),))
    assert response.header("x-request-id") == "mine"
    assert call(router.port, method, path).header("x-request-id")


def test_the_engines_request_id_is_not_the_clients(router, engines):
    reply = answer({"id": 1}, headers=(("x-request-id", "engines-own"), ("x-router-service", "no")))
    engines["chat"].script = lambda _: [Send(reply)]
    response = ask(router, PATH, BIG, ("x-request-id", "mine"))
    assert [v for n, v in response.headers if n == "x-request-id"] == ["mine"]
    assert [v for n, v in response.headers if n == "x-router-service"] == ["chat"]


def test_an_inference_answer_says_who_served_it_and_how_long_it_took(router):
    response = ask(router)
    assert response.header("x-router-service") == "chat"
    timing = dict(
        part.strip().split(";dur=") for part in response.header("server-timing").split(",")
    )
    assert list(timing) == ["queue", "connect", "ttft"]
    assert all(0 <= float(value) < 60_000 for value in timing.values())


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [(b"nonsense", 400, "invalid_request_error"), (b"{}", 400, "invalid_request_error"),
     (b'{"model": "nope"}', 404, "not_found_error"), (b'{"model": "gone/model"}', 503, None)],
)  # fmt: skip
def test_messages_tells_its_errors_in_anthropics_form(router, path, body, status, kind):
    response = call(router.port, "POST", path, body)
    assert response.status == status
    content = response.json
    assert content["type"] == "error"
    assert content["error"]["message"]
    assert kind is None or content["error"]["type"] == kind
    assert "messages" in path
