"""Which headers cross, in either direction."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.proxy.headers import request_id, to_downstream, to_upstream, trace_of

HOP_BY_HOP = (
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
)  # fmt: skip
CLIENTS_OWN = (
    b"authorization", b"x-api-key", b"api-key", b"x-auth-token", b"cookie", b"forwarded",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto",
    b"x-real-ip", b"x-goog-api-key", b"cf-connecting-ip", b"cf-connecting-ipv6", b"client-ip",
    b"fastly-client-ip", b"true-client-ip", b"via", b"x-client-ip", b"x-cluster-client-ip",
    b"x-envoy-external-address", b"x-forwarded-client-cert", b"x-original-forwarded-for",
    b"x-data-parallel-rank",
)  # fmt: skip
REWRITTEN = (b"host", b"content-length", b"x-request-id", b"expect", b"accept-encoding")
SANE = (string.ascii_letters + string.digits + "._:-").encode()
UP, DOWN = to_upstream(), to_downstream()


def up(headers) -> bytes:
    return UP.split(headers)[0]


def down(headers) -> bytes:
    return DOWN.split(headers)[0]


BOTH = pytest.mark.parametrize("cross", [up, down])


def pairs(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


@BOTH
@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_a_hop_by_hop_header_ends_here(cross, name):
    assert cross([(name, b"x")]) == b""


@BOTH
@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_a_hop_by_hop_header_ends_here_however_often_it_comes(cross, name):
    assert cross([(name, b"x"), (b"a", b"1"), (name, b"y")]) == b"a: 1\r\n"


@BOTH
def test_headers_that_connection_names_end_here(cross):
    headers = pairs(x_one="1", connection="close, X-ONE ,x-two", x_two="2", x_three="3")
    assert cross(headers) == b"x-three: 3\r\n"


@BOTH
def test_every_connection_header_is_heeded(cross):
    headers = [*pairs(x_one="1", connection="x-one"), (b"connection", b"x-two"), *pairs(x_two="2")]
    assert cross(headers) == b""


@BOTH
def test_what_connection_names_for_one_head_crosses_in_the_next(cross):
    cross(pairs(connection="x-one", x_one="1"))
    assert cross(pairs(x_one="1")) == b"x-one: 1\r\n"


@BOTH
@pytest.mark.parametrize("value", ["close", "keep-alive", "", ", ,", "Keep-Alive, close"])
def test_a_connection_header_without_names_drops_only_itself(cross, value):
    assert cross(pairs(connection=value, keep="1", x_one="2")) == b"keep: 1\r\nx-one: 2\r\n"


@pytest.mark.parametrize("name", CLIENTS_OWN)
def test_a_clients_credentials_and_address_never_go_up(name):
    assert up([(name, b"secret")]) == b""
    assert up([(name, b"secret"), (name, b"another")]) == b""


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_is_written_anew_does_not_go_up(name):
    assert up([(name, b"x")]) == b""


@pytest.mark.parametrize(
    "name", ["traceparent", "tracestate", "content-type", "accept", "user-agent", "x-stainless-os"]
)
def test_end_to_end_headers_go_up_as_they_came(name):
    assert up([(name.encode(), b"a b")]) == name.encode() + b": a b\r\n"


@pytest.mark.parametrize(
    "name",
    ["content-length", "x-request-id", "x-router-service", "server-timing",
     "x-ratelimit-remaining-tokens"],
)  # fmt: skip
def test_what_the_router_says_itself_does_not_come_down(name):
    assert down([(name.encode(), b"x")]) == b""


@pytest.mark.parametrize("name", ["content-type", "set-cookie", "www-authenticate", "date"])
def test_end_to_end_headers_come_down_as_they_came(name):
    assert down([(name.encode(), b"a")]) == name.encode() + b": a\r\n"


@BOTH
def test_order_and_repetition_are_kept(cross):
    headers = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    assert cross(headers) == b"b: 1\r\na: 2\r\nb: 3\r\n"


NAMES = st.text("abcdefgh-", min_size=1, max_size=6).map(str.encode)
VALUES = st.text(string.ascii_letters + " ,;=", max_size=8).map(str.encode)


@BOTH
@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=6), named=st.sets(NAMES, max_size=3))
def test_exactly_the_named_headers_are_dropped(cross, headers, named):
    sent = [*headers, (b"connection", b", ".join(sorted(named)))]
    kept = b"".join(b"%b: %b\r\n" % row for row in headers if row[0] not in named)
    assert cross(sent) == kept


@BOTH
@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_what_was_seen_before_changes_nothing(cross, headers):
    assert cross(headers) == cross(headers) == b"".join(b"%b: %b\r\n" % row for row in headers)


# -- what the router reads itself ------------------------------------------------------------------


def test_every_header_is_noted_whether_it_crosses_or_not():
    lines, noted = UP.split([(b"authorization", b"k"), (b"content-type", b"a"), (b"x-o", b"1")])
    assert lines == b"content-type: a\r\nx-o: 1\r\n"
    assert noted == {b"authorization": b"k", b"content-type": b"a", b"x-o": b"1"}


def test_a_header_is_noted_although_connection_names_it():
    _, noted = DOWN.split([(b"connection", b"content-type"), (b"content-type", b"a")])
    assert noted[b"content-type"] == b"a"


def test_the_values_of_a_repeated_header_are_noted_as_one_list():
    sent = [(b"x-forwarded-for", b"1"), (b"accept", b"a"), (b"x-forwarded-for", b"2")]
    assert UP.split(sent)[1] == {b"x-forwarded-for": b"1,2", b"accept": b"a"}


# -- request ids -----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(list(SANE)), min_size=1, max_size=128).map(bytes))
def test_a_sane_id_is_kept(sent):
    assert request_id(sent) == sent


@given(st.binary(max_size=140))
def test_whatever_was_sent_the_id_is_sane(sent):
    assert re.fullmatch(rb"[A-Za-z0-9._:-]{1,128}", request_id(sent))


@pytest.mark.parametrize("sent", [None, b"", b"a" * 129, b"a b", b"a\n", b"a\r\nx: y", b"\xc3\xa9"])
def test_another_id_is_replaced_by_a_new_one(sent):
    first, second = request_id(sent), request_id(sent)
    assert first != second
    assert first != sent


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("sent", [None, b"", b"z" * 60_000, TRACE + b"x", TRACE.upper(), b"\xff"])
def test_what_is_no_traceparent_is_not_told(sent):
    assert trace_of(sent) is None


def test_a_traceparent_is_told_as_it_came():
    assert trace_of(TRACE) == TRACE
