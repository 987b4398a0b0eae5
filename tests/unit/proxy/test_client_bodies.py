"""Bodies of requests: where they end, and that nobody can say so in two ways."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.proxy.client_fakes import CHUNKED, GET, POST, Client, echo, head, later

IN_CHUNKS = head(b"transfer-encoding: chunked")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def test_a_body_of_a_told_length_is_read_whole(client):
    client.send(head(b"content-length: 5"), b"he", b"ll")
    assert client.handler.requests == []
    (answer,) = client.ask(b"o" + GET[:3])
    assert answer.body == b"/x hello"


def test_a_body_of_one_read_is_not_copied(client):
    client.send(head(b"content-length: 5"), b"hello")
    (exchange,) = client.handler.requests
    assert exchange.body is exchange.body


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=6),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_a_chunked_body_is_what_was_sent_however_it_is_cut(pieces, cuts):
    sent = IN_CHUNKS + chunked(*pieces) + b"0\r\n\r\n"
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    client = Client()
    client.ask(*(sent[a:b] for a, b in itertools.pairwise(edges)))
    (exchange,) = client.handler.requests
    assert exchange.body == b"".join(pieces)


def test_trailers_go_no_further(client):
    client.ask(IN_CHUNKS + chunked(b"hello") + b"0\r\nx-a: 1\r\nhost: other\r\n\r\n" + GET)
    assert [exchange.lines for exchange in client.handler.requests] == [b"", b""]
    assert client.handler.requests[0].noted[b"host"] == b"h"


def test_a_chunk_may_have_extensions(client):
    assert client.ask(CHUNKED)[0].body == b"/x hello"


def test_a_body_of_the_largest_size_is_taken():
    client = Client(max_body_mb=1)
    body = b"x" * 1048576
    told, by_chunks = head(b"content-length: 1048576") + body, IN_CHUNKS + chunked(body)
    assert [a.status for a in client.ask(told, by_chunks, b"0\r\n\r\n")] == [200, 200]


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: 5", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked", b"content-length: 5"],
        [b"content-length: 5", b"content-length: 5"],
        [b"content-length: 5", b"content-length: 6"],
        [b"transfer-encoding: chunked", b"transfer-encoding: chunked"],
        *([b"content-length: " + value] for value in (
            b"", b"+5", b"-1", b"5,5", b"5 5", b"0x5", b"5_0", b"\xc2\xb2", b"9" * 23,
        )),
        *([b"transfer-encoding: " + value] for value in (
            b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
            b"xchunked", b"\x0bchunked",
        )),
    ],
    ids=repr,
)  # fmt: skip
def test_a_body_whose_end_is_not_plain_is_refused_and_reaches_nobody(client, lines):
    answers = client.ask(head(*lines), chunked(b"hello"), b"0\r\n\r\n")
    assert [answer.status for answer in answers] == [400]
    assert client.handler.requests == []
    assert not client.is_open


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"-1\r\n", b"5\r\nhelloX\r\n", b"5\r\nhello0\r\n\r\n", b"f" * 17 + b"\r\n"]
)
def test_chunks_that_are_none_are_refused(client, body):
    answers = client.ask(IN_CHUNKS + body)
    assert [answer.status for answer in answers] == [400]
    assert client.lingers


def test_the_name_of_the_coding_has_no_case(client):
    sent = head(b"Transfer-Encoding: Chunked") + chunked(b"hello") + b"0\r\n\r\n"
    assert client.ask(sent)[0].body == b"/x hello"


def test_chunks_in_http_1_0_close_the_connection(client):
    """RFC 9112, section 6.1: whoever passed it on may have framed it in another way."""
    lines = b"transfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n"
    client.ask(b"POST /x HTTP/1.0\r\n" + lines + b"0\r\n\r\n")
    assert not client.is_open


def test_an_empty_line_between_two_requests_does_no_harm(client):
    assert [a.status for a in client.ask(POST + b"\r\n" + GET, b"\r\n", GET)] == [200] * 3


# -- memory ----------------------------------------------------------------------------------------


def held(client: Client, piece: bytes, times: int) -> int:
    """Bytes of memory that so many reads of `piece` leave behind."""
    tracemalloc.start()
    for _ in range(times):
        client.send(piece)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size


def test_a_body_in_tiny_chunks_takes_not_many_times_its_size(client):
    client.send(IN_CHUNKS)
    assert held(client, chunked(*[b"ab"] * 8192), 16) < 4 * 2 * 8192 * 16


def test_very_many_requests_in_one_read_take_not_many_times_their_size(waiting):
    smallest = b"GET / HTTP/1.1\r\nhost:\r\n\r\n"
    assert held(waiting, smallest * 10_000, 1) < 4 * 10_000 * len(smallest)


@pytest.mark.parametrize("piece", [b"a" * 65536, b"a: b\r\n" * 10_000], ids=["line", "lines"])
def test_trailers_are_bounded(client, piece):
    client.send(IN_CHUNKS + b"0\r\nx: y\r\n")
    held(client, piece, 30)
    assert [answer.status for answer in client.got()] == [400]


def test_extensions_of_a_chunk_are_bounded(client):
    client.send(IN_CHUNKS + b"5;a=")
    held(client, b"a" * 65536, 30)
    assert [answer.status for answer in client.got()] == [400]


# -- the sum of all -------------------------------------------------------------------------------

MIB = 1024 * 1024
HALF = head(b"content-length: %d" % MIB)


@pytest.fixture
def narrow() -> Client:
    """Takes bodies of 1 MiB, and no more than that of all together."""
    client = Client(max_body_mb=1, max_body_memory_mb=1)
    client.handler.reply = later
    return client


def test_bodies_that_are_too_large_together_are_shed_at_once(narrow):
    narrow.send(HALF, b"x" * (MIB // 2))
    narrow.connect()
    (answer,) = narrow.ask(HALF, b"x" * (MIB // 2 + 1))
    assert (answer.status, b'"overloaded"' in answer.body) == (503, True)
    assert int(answer.headers["retry-after"]) >= 1


def test_what_was_shed_takes_no_memory_from_the_others(narrow):
    narrow.send(HALF, b"x" * (MIB // 2))
    narrow.connect()
    narrow.ask(HALF, b"x" * (MIB // 2 + 1))
    assert narrow.downstream.body_bytes == MIB // 2


def test_an_answer_gives_the_bodys_memory_back(narrow):
    narrow.send(HALF, b"x" * MIB)
    assert narrow.downstream.body_bytes == MIB
    echo(narrow.handler.requests[0])
    assert narrow.downstream.body_bytes == 0


@pytest.mark.parametrize("size", [MIB, MIB // 2], ids=["whole", "half"])
def test_a_client_that_leaves_gives_the_bodys_memory_back(narrow, size):
    narrow.send(HALF, b"x" * size)
    narrow.leave()
    assert narrow.downstream.body_bytes == 0


def test_requests_behind_an_answer_that_closes_give_their_memory_back(narrow):
    first = head(b"content-length: 2", b"connection: close") + b"{}"
    narrow.handler.reply = echo
    narrow.ask(POST + first + POST)
    assert narrow.downstream.body_bytes == 0


@given(
    kinds=st.lists(st.sampled_from(["whole", "half", "long", "bad"]), min_size=1, max_size=6),
    leaves=st.booleans(),
)
def test_whatever_clients_send_nothing_is_counted_when_they_have_gone(kinds, leaves):
    pieces = {
        "whole": POST,
        "half": HALF + b"x" * 1000,
        "long": IN_CHUNKS + chunked(b"x" * (MIB + 1)) + b"0\r\n\r\n",
        "bad": head(b"content-length: 9") + b"x" * 9 + b"\x00\x00",
    }
    client = Client(max_body_mb=1, max_body_memory_mb=1)
    if leaves:
        client.handler.reply = later
    client.ask(*(pieces[kind] for kind in kinds))
    client.leave()
    assert client.downstream.body_bytes == 0


def test_a_body_in_pieces_lies_in_memory_once(client):
    client.handler.reply = later
    tracemalloc.start()
    try:
        client.send(head(b"content-length: %d" % (8 * MIB)), *[b"x" * MIB] * 8)
        (exchange,) = client.handler.requests
        body = exchange.body
        assert len(body) == 8 * MIB
        assert tracemalloc.get_traced_memory()[0] < 10 * MIB
    finally:
        tracemalloc.stop()


def test_a_body_that_is_forgotten_takes_no_memory(client):
    client.handler.reply = later
    tracemalloc.start()
    try:
        client.send(head(b"content-length: %d" % (8 * MIB)), *[b"x" * MIB] * 8)
        client.handler.requests[0].forget_body()
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()
