"""One connection to an engine, driven byte by byte over a fake transport."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.proxy.proxy_fakes import CHUNKED, HEAD, UNARY, Heard, opened, pool_of

REQUEST = b"POST / HTTP/1.1\r\n\r\n"
UNTIL_EOF = HEAD + b"\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
TRAILERS = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"


def exchange(*pieces: bytes, eof: bool | Exception = False):
    """Send one request, receive these pieces, and perhaps the connection's end."""
    pool = pool_of()
    connection, transport = opened(pool)
    heard = Heard()
    connection.send(REQUEST, b"{}", heard)
    for piece in pieces:
        if not transport.aborted:
            connection.data_received(piece)
    if eof:
        connection.connection_lost(eof if isinstance(eof, Exception) else None)
    return heard, pool, transport


# -- whole answers ---------------------------------------------------------------------------------

WHOLE = {
    "content-length": (UNARY, 5),
    "chunked": (CHUNKED, None),
    "chunked-with-trailers": (TRAILERS, None),
    "after-interim-heads": (INTERIM + UNARY, 5),
}


@pytest.mark.parametrize(("wire", "length"), WHOLE.values(), ids=WHOLE)
def test_an_answer_is_told_whole(wire, length):
    heard, _, _ = exchange(wire)
    assert (heard.end, heard.body, heard.heads) == ("end", b"hello", 1)
    assert (heard.head.status, heard.head.reason, heard.head.length) == (200, b"OK", length)


@pytest.mark.parametrize(("wire", "length"), WHOLE.values(), ids=WHOLE)
def test_an_answer_is_told_the_same_wherever_it_is_cut(wire, length):
    for place in range(1, len(wire)):
        heard, pool, _ = exchange(wire[:place], wire[place:])
        assert (heard.end, heard.body, heard.heads, pool.idle) == ("end", b"hello", 1, 1)
        assert heard.head.lines == b"content-type: application/json\r\n"


@pytest.mark.parametrize(("wire", "length"), WHOLE.values(), ids=WHOLE)
def test_an_answer_is_told_the_same_byte_by_byte(wire, length):
    heard, pool, _ = exchange(*(bytes([byte]) for byte in wire))
    assert (heard.end, heard.body, heard.heads, pool.idle) == ("end", b"hello", 1, 1)
    assert (heard.head.reason, heard.head.length) == (b"OK", length)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.data())
def test_any_chunks_in_any_pieces_are_told_as_one_body(chunks, data):
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire = HEAD + b"transfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    places = sorted(data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=5, unique=True)))
    edges = [0, *places, len(wire)]
    heard, _, _ = exchange(*(wire[a:b] for a, b in itertools.pairwise(edges)))
    assert (heard.end, heard.body) == ("end", b"".join(chunks))


def test_one_read_is_one_piece():
    heard, _, _ = exchange(CHUNKED)
    assert heard.pieces == [b"hello"]


def test_a_chunks_bytes_are_told_before_the_chunk_is_whole():
    heard, _, _ = exchange(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhe")
    assert (heard.pieces, heard.end) == ([b"he"], None)


def test_a_head_is_told_before_any_body():
    heard, _, _ = exchange(HEAD + b"content-length: 5\r\n\r\n")
    assert (heard.heads, heard.end) == (1, None)


@pytest.mark.parametrize("place", range(1, len(EMPTY)))
def test_204_ends_with_its_head(place):
    heard, pool, _ = exchange(EMPTY[:place], EMPTY[place:])
    assert (heard.end, heard.body, heard.head.status, pool.idle) == ("end", b"", 204, 1)


def test_an_empty_body_ends_with_its_head():
    heard, _, _ = exchange(HEAD + b"content-length: 0\r\n\r\n")
    assert (heard.end, heard.body, heard.head.length) == ("end", b"", 0)


def test_a_body_without_framing_ends_with_the_connection():
    heard, pool, _ = exchange(UNTIL_EOF, eof=True)
    assert (heard.end, heard.body, heard.head.length) == ("end", b"hello", None)
    assert (pool.idle, pool.busy) == (0, 0)


def test_a_body_without_framing_that_is_reset_is_broken():
    heard, _, _ = exchange(UNTIL_EOF, eof=ConnectionResetError())
    assert heard.end == "Disconnected"


def test_headers_come_as_they_were_sent_but_for_the_case_of_their_names():
    heard, _, _ = exchange(b"HTTP/1.1 200 \r\nX-One: a, b\r\nx-one:c\r\ncontent-length: 0\r\n\r\n")
    assert heard.head.lines == b"x-one: a, b\r\nx-one: c\r\n"
    assert heard.head.reason == b""


def test_trailers_are_no_headers():
    heard, _, _ = exchange(TRAILERS)
    assert b"x-sum" not in heard.head.lines


@pytest.mark.parametrize(
    ("media", "streams"),
    [(b"text/event-stream", True), (b"text/event-stream; charset=utf-8", True), (b"text/x", False)],
)
def test_a_stream_of_events_is_told_from_other_answers(media, streams):
    wire = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\ncontent-length: 0\r\n\r\n" % media
    assert exchange(wire)[0].head.streams is streams


def test_an_engines_retry_after_is_told():
    wire = b"HTTP/1.1 503 X\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n"
    assert exchange(wire)[0].head.retry_after == b"7"


# -- broken ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire", [UNARY, CHUNKED, INTERIM + UNARY], ids=["length", "chunked", "1xx"]
)
def test_an_end_anywhere_before_the_answers_own_is_a_disconnect(wire):
    for place in range(len(wire)):
        heard, pool, _ = exchange(*([wire[:place]] if place else []), eof=True)
        assert heard.end == "Disconnected"
        assert (pool.idle, pool.busy) == (0, 0)


MALFORMED = {
    "not-http": b"hello\r\n\r\n",
    "http-2": b"HTTP/2 200 OK\r\n\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46",
    "status-not-a-number": b"HTTP/1.1 abc OK\r\n\r\n",
    "header-without-colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "two-lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "length-not-a-number": HEAD + b"content-length: five\r\n\r\nhello",
    "negative-length": HEAD + b"content-length: -5\r\n\r\nhello",
    "length-and-chunked": HEAD
    + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk-size-not-hex": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "chunk-longer-than-said": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_http_is_malformed_and_the_connection_is_aborted(wire):
    heard, pool, transport = exchange(wire)
    assert heard.end == "MalformedAnswer"
    assert transport.aborted
    assert pool.idle == 0


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_http_is_malformed_byte_by_byte_too(wire):
    assert exchange(*(bytes([byte]) for byte in wire))[0].end == "MalformedAnswer"


def test_a_huge_head_is_malformed():
    line = b"x-fill: " + b"y" * 1000 + b"\r\n"
    heard, _, transport = exchange(b"HTTP/1.1 200 OK\r\n", *([line] * 300))
    assert (heard.end, transport.aborted) == ("MalformedAnswer", True)


def test_endless_interim_heads_are_malformed():
    heard, _, _ = exchange(*([b"HTTP/1.1 100 Continue\r\n\r\n" * 100] * 110))
    assert heard.end == "MalformedAnswer"


def test_endless_trailers_are_malformed():
    line = b"x-fill: " + b"y" * 1000 + b"\r\n"
    start = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    assert exchange(start, *([line] * 300))[0].end == "MalformedAnswer"


def test_a_large_body_is_no_large_head():
    body = b"z" * 1_000_000
    heard, _, _ = exchange(HEAD + b"content-length: 1000000\r\n\r\n" + body[:9], body[9:])
    assert (heard.end, len(heard.body)) == ("end", 1_000_000)


# -- one more than asked for -----------------------------------------------------------------------


@pytest.mark.parametrize("extra", [UNARY, b"garbage", b"\x00", b"HTTP/1.1 200 OK\r\n"])
def test_bytes_behind_an_answer_do_not_belong_to_it_and_end_the_connection(extra):
    heard, pool, transport = exchange(UNARY + extra)
    assert (heard.end, heard.body) == ("end", b"hello")
    assert (pool.idle, transport.aborted) == (0, True)


@pytest.mark.parametrize("extra", [UNARY, b"garbage", b"H"])
def test_bytes_that_come_while_idle_end_the_connection(extra):
    pool = pool_of()
    connection, transport = opened(pool)
    connection.send(REQUEST, b"", Heard())
    connection.data_received(UNARY)
    assert pool.idle == 1
    connection.data_received(extra)
    assert transport.aborted
    assert pool.take_idle() is None


# -- reuse -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [UNARY, CHUNKED, EMPTY, TRAILERS])
@pytest.mark.parametrize("second", [UNARY, CHUNKED])
def test_a_connection_carries_one_exchange_after_another(first, second):
    pool = pool_of()
    connection, transport = opened(pool)
    connection.send(REQUEST, b"", Heard())
    connection.data_received(first)
    assert pool.take_idle() is connection
    assert connection.reused
    heard = Heard()
    connection.send(REQUEST, b"", heard)
    connection.data_received(second)
    assert (heard.end, heard.body) == ("end", b"hello")
    assert transport.written == REQUEST * 2


@pytest.mark.parametrize(
    "wire",
    [
        HEAD + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
        HEAD + b"Connection: x, Close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ],
)
def test_an_answer_that_says_close_is_whole_and_its_connection_is_not_used_again(wire):
    heard, pool, transport = exchange(wire)
    assert (heard.end, heard.body) == ("end", b"hello")
    assert (pool.idle, transport.aborted) == (0, True)


def test_an_answer_of_http_1_0_may_be_kept_alive():
    wire = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello"
    assert exchange(wire)[1].idle == 1


def test_a_connection_that_was_paused_reads_again_for_its_next_exchange():
    """The last piece of an answer may fill the client's buffer: that is when `pause` comes."""
    pool = pool_of()
    connection, transport = opened(pool)

    class Slow(Heard):
        def on_data(self, data: bytes) -> None:
            super().on_data(data)
            connection.pause()

    connection.send(REQUEST, b"", Slow())
    connection.data_received(UNARY)
    pool.take_idle().send(REQUEST, b"", Heard())
    assert transport.reading


# -- what the owner does ---------------------------------------------------------------------------


def test_a_small_request_is_one_write_and_a_large_one_is_not_joined():
    pool = pool_of()
    for size in (10, 100_000):
        connection, transport = opened(pool)
        connection.send(REQUEST, b"x" * size, Heard())
        assert transport.written == REQUEST + b"x" * size


def test_an_abort_tells_nobody_then_or_later():
    pool = pool_of()
    connection, transport = opened(pool)
    heard = Heard()
    connection.send(REQUEST, b"", heard)
    connection.data_received(UNARY[:-2])
    connection.abort()
    connection.data_received(UNARY[-2:])
    connection.connection_lost(None)
    assert heard.end is None
    assert transport.aborted


def test_an_abort_while_the_last_piece_is_handed_on_gives_nothing_back():
    pool = pool_of()
    connection, _ = opened(pool)

    class Leaving(Heard):
        def on_data(self, data: bytes) -> None:
            connection.abort()

    heard = Leaving()
    connection.send(REQUEST, b"", heard)
    connection.data_received(UNARY)
    assert (heard.end, pool.idle) == (None, 0)


def test_pausing_and_resuming_a_closed_connection_does_nothing():
    pool = pool_of()
    connection, transport = opened(pool)
    connection.abort()
    connection.pause()
    assert transport.reading
    connection.connection_lost(None)
    connection.resume()
    connection.abort()
    assert connection.is_closed


@pytest.mark.parametrize(
    ("prepare", "state"),
    [
        (lambda c: None, "idle"),
        (lambda c: c.send(REQUEST, b"", Heard()), "busy"),
        (lambda c: c.abort(), "closed"),
    ],
)
def test_its_repr_tells_its_state(prepare, state):
    connection, _ = opened(pool_of())
    prepare(connection)
    assert repr(connection) == f"<UpstreamConnection engine:8000 {state}>"
