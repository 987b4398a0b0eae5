"""Heads of requests: which are taken, which are refused, and what they say of the connection."""

from __future__ import annotations

import pytest

from router.errors import InvalidApiKey
from unit.proxy.client_fakes import GET, Client, head

KIB = 1024


def status(client: Client, *reads: bytes) -> int:
    (answer,) = client.ask(*reads)
    return answer.status


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# -- the request line ------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_method_and_path_are_told_as_they_were_sent(client, cut):
    client.ask(*pieces(head(start=b"DELETE /a%20b/c?d=/e HTTP/1.1"), cut))
    (exchange,) = client.handler.requests
    assert (exchange.method, exchange.path) == (b"DELETE", "/a%20b/c")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://host/v1/models?a=b", "/v1/models", "b"),
        (b"HTTPS://host:8000/x/http://y", "/x/http://y", None),
        (b"http://host", "/", None),
        (b"http://host?a=b", "/", "b"),
    ],
)
def test_a_target_as_for_a_proxy_is_its_path(client, target, path, query):
    """RFC 9112, section 3.2.2: a server takes the absolute form."""
    client.ask(head(start=b"GET " + target + b" HTTP/1.1"))
    (exchange,) = client.handler.requests
    assert (exchange.path, exchange.parameter("a")) == (path, query)


@pytest.mark.parametrize("version", ["0.9", "1.2", "1.10", "2.0", "3", "x"])
def test_another_version_is_refused(client, version):
    assert status(client, head(start=b"GET /x HTTP/" + version.encode())) == 400
    assert not client.is_open


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /x\r\n\r\n", b"GET /x HTTPS/1.1\r\n\r\n", b"\x16\x03\x01\x00", b"\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"G\xc3\x8bT /x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: h\r\n\r\n", b"GET /x HTTP/1.1\nhost: h\n\n",
        b"GET /x HTTP/1.1\r\nhost : h\r\n\r\n", b"GET /x HTTP/1.1\r\nhost: h\r\n folded\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost: h\r\na: b\x00c\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost: h\r\na: b\rc\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_http_1_1_is_refused_and_reaches_nobody(client, sent):
    assert status(client, sent) == 400
    assert not client.is_open
    assert client.handler.requests == []


# -- size and number -------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"GET /%b HTTP/1.1", b"GET /x HTTP/1.1\r\na: %b"])
def test_a_head_of_60_kib_is_taken(client, start):
    assert status(client, *pieces(head(start=start % (b"x" * 60 * KIB)), 4096)) == 200


@pytest.mark.parametrize("start", [b"GET /%b HTTP/1.1", b"GET /x HTTP/1.1\r\na: %b"])
def test_a_head_over_64_kib_is_refused_before_it_is_whole(client, start):
    sent = head(start=start % (b"x" * 66 * KIB))
    assert status(client, *pieces(sent[: 65 * KIB + 512], 512)) == 400
    assert client.lingers


def test_a_head_over_64_kib_is_refused_in_one_read_too(client):
    assert status(client, head(b"a: " + b"x" * 66 * KIB, start=b"GET /x HTTP/1.1")) == 400


def test_a_large_body_takes_nothing_from_the_size_of_the_next_head(client):
    first = head(b"content-length: 100000") + b"x" * 100_000
    client.ask(first + GET[:9], GET[9:12], GET[12:])
    assert [answer.status for answer in client.got()] == [200, 200]


def test_an_empty_line_after_a_large_body_does_no_harm(client):
    client.ask(head(b"content-length: 100000") + b"x" * 100_000)
    client.ask(b"\r\n", GET)
    assert [answer.status for answer in client.got()] == [200, 200]


@pytest.mark.parametrize(("count", "told"), [(127, 200), (128, 400)])
def test_128_headers_are_taken_and_one_more_is_not(client, count, told):
    """One of them is `host`."""
    assert status(client, head(*[b"a: b"] * count, start=b"GET /x HTTP/1.1")) == told


# -- host ------------------------------------------------------------------------------------------


def test_a_request_without_a_host_is_refused(client):
    assert status(client, b"GET /x HTTP/1.1\r\n\r\n") == 400


def test_http_1_0_needs_no_host(client):
    assert status(client, b"GET /x HTTP/1.0\r\n\r\n") == 200


def test_a_request_with_two_hosts_is_refused(client):
    """RFC 9112, section 3.2."""
    assert status(client, head(b"host: other", start=b"GET /x HTTP/1.1")) == 400


# -- headers ---------------------------------------------------------------------------------------


def test_lines_that_cross_are_told_apart_from_those_that_do_not(client):
    client.ask(head(b"Accept: a", b"Authorization: k", b"X-Other:  1", start=b"GET /x HTTP/1.1"))
    (exchange,) = client.handler.requests
    assert exchange.lines == b"accept: a\r\nx-other: 1\r\n"
    assert exchange.header(b"authorization") == "k"
    assert exchange.header(b"cookie") is None


def test_blanks_around_a_value_are_no_part_of_it(client):
    """RFC 9112, section 5.1."""
    client.ask(head(b"x-request-id: \tr-1 \t", b"x-other: 1 ", start=b"GET /x HTTP/1.1"))
    (exchange,) = client.handler.requests
    assert (exchange.request_id, exchange.lines) == (b"r-1", b"x-other: 1\r\n")


def test_bytes_that_are_no_utf_8_can_be_read_and_written_again(client):
    client.ask(head(b"authorization: \xff\xc3\xa9", start=b"GET /x HTTP/1.1"))
    (exchange,) = client.handler.requests
    assert exchange.header(b"authorization").encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9"


# -- HTTP/1.0 --------------------------------------------------------------------------------------


def test_http_1_0_closes_after_its_answer(client):
    (answer,) = client.ask(b"GET /x HTTP/1.0\r\n\r\n")
    assert answer.headers["connection"] == "close"
    assert client.transport.closed


def test_http_1_0_stays_where_it_asks_for_it(client):
    for count in (1, 2):
        answers = client.ask(b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert [a.headers["connection"] for a in answers] == ["keep-alive"] * count
    assert client.is_open


def test_http_1_0_that_stays_is_told_so_by_a_refusal_too(client):
    client.handler.refusal = lambda _: InvalidApiKey("no")
    (answer,) = client.ask(b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (401, "keep-alive")
    assert client.is_open


# -- expectations ----------------------------------------------------------------------------------

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_a_client_that_asks_whether_to_go_on_is_told_so_at_once(client, value):
    client.send(head(b"expect: " + value, b"content-length: 5"))
    assert client.transport.written == CONTINUE
    (answer,) = client.ask(b"hello")
    assert (answer.status, answer.body) == (200, b"/x hello")
    assert client.transport.written.count(CONTINUE) == 1


def test_a_client_that_asks_whether_to_go_on_is_refused_instead(client):
    client = Client(max_body_mb=1)
    assert status(client, head(b"expect: 100-continue", b"content-length: 2000000")) == 413
    assert CONTINUE not in client.transport.written
    assert client.lingers


def test_an_expectation_of_http_1_0_is_ignored(client):
    """RFC 9110, section 10.1.1."""
    client.send(b"POST /x HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    assert client.transport.written == b""


# -- upgrades --------------------------------------------------------------------------------------

H2C = (b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__")
UPGRADE = head(b"connection: Upgrade, HTTP2-Settings", *H2C, b"content-length: 5") + b"hello"


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_an_upgrade_is_declined_and_the_body_is_read(client, cut):
    answers = client.ask(*pieces(UPGRADE + GET, cut))
    assert [(a.status, a.body) for a in answers] == [(200, b"/x hello"), (200, b"/x ")]
    assert client.handler.requests[0].lines == b""
    assert client.is_open


def test_an_upgrade_with_a_chunked_body_is_declined_and_the_body_is_read(client):
    sent = head(b"connection: upgrade", *H2C, b"transfer-encoding: chunked")
    answers = client.ask(GET + sent + b"5\r\nhello\r\n0\r\n\r\n" + GET)
    assert [answer.body for answer in answers] == [b"/x ", b"/x hello", b"/x "]


def test_a_web_socket_is_declined(client):
    sent = head(b"connection: Upgrade", b"upgrade: websocket", start=b"GET /x HTTP/1.1")
    assert status(client, sent) == 200
    assert client.is_open


def test_a_declined_upgrade_still_closes_where_the_client_says_so(client):
    client.ask(head(b"connection: close, upgrade", *H2C, start=b"GET /x HTTP/1.1"))
    assert client.got()[0].headers["connection"] == "close"
    assert client.transport.closed


def test_a_declined_upgrade_still_ends_what_connection_names(client):
    client.ask(head(b"connection: x-a, upgrade", b"x-a: 1", *H2C, start=b"GET /x HTTP/1.1"))
    assert client.handler.requests[0].lines == b""


def test_an_upgrade_of_http_1_0_is_ignored(client):
    """RFC 9110, section 7.8."""
    sent = b"GET /x HTTP/1.0\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    assert status(client, sent) == 200
    assert client.transport.closed


@pytest.mark.parametrize("target", [b"h:443", b"/x"])
def test_connect_is_refused_and_what_follows_is_not_read(client, target):
    sent = head(start=b"CONNECT " + target + b" HTTP/1.1")
    (answer,) = client.ask(sent + GET)
    assert (answer.status, b"CONNECT" in answer.body) == (400, True)
    assert client.lingers
    assert client.handler.heads == []
