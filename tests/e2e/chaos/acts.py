"""What hostile engines do with one request: drawn from a seed, and known to the oracle.

An act is a list of steps for the socket, and beside it what of its body a client may see.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from support.wire import DONE, LAST_CHUNK, chunk, stream_head


class End(Enum):
    """How an act ends beyond its bytes."""

    KEEP = "keep"
    FIN = "fin"
    RST = "rst"
    STALL = "stall"


Piece = bytes | float
"""Bytes to write in one go, or seconds to say nothing."""


@dataclass(frozen=True, slots=True)
class Act:
    """One answer, or what stands for one.

    Attributes:
        name: of its kind, for reports.
        pieces: to be written in order.
        end: what follows them.
        status: of the answer; 0 where no head is valid.
        shown: the most of the body that a client may see.
        is_whole: all of `shown` is sent, and framed as it should be.
    """

    name: str
    pieces: Sequence[Piece]
    end: End = End.KEEP
    status: int = 0
    shown: bytes = b""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What the engine is asked for, as it read it.

    Attributes:
        marker: names exchange and attempt; every body carries it.
        streams: whether a stream is wanted.
        usage: the last event tells usage.
        each: every event does.
        large: so much that it fills every buffer on the way.
    """

    marker: str
    streams: bool
    usage: bool = False
    each: bool = False
    large: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer, before anything hostile is done to it: its events, or one body."""

    streams: bool
    parts: tuple[bytes, ...] = field(repr=False)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


TEXTS = (
    "plain",
    "grüße",
    "日本語テキスト",
    "🙂🙃🫠",
    '\\u0000 " \\ / \n',
    "data: [DONE]\\n\\n",
    "",
)


def _compact(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def good_answer(asked: Asked, rng: random.Random) -> Answer:
    """The answer to a request; the same seed and marker give the same, with or without usage."""
    texts = [rng.choice(TEXTS) for _ in range(rng.randint(1, 8))]
    if asked.large:
        texts = ["x" * 20_000] * rng.randint(60, 160)
    usage = {"prompt_tokens": 7, "total_tokens": 7 + len(texts), "completion_tokens": len(texts)}
    if not asked.streams:
        message = {"role": "assistant", "content": "".join(texts)}
        content = {"id": asked.marker, "choices": [{"index": 0, "message": message}]}
        return Answer(False, (_compact({**content, "usage": usage}),))
    parts = [b": keep-alive\n\n"] if rng.random() < 0.1 else []
    for number, text in enumerate(texts, 1):
        row: dict[str, Any] = {"id": asked.marker}
        row["choices"] = [{"index": 0, "delta": {"content": text}}]
        if asked.each:
            row["usage"] = {**usage, "total_tokens": 7 + number, "completion_tokens": number}
        parts.append(b"data: " + _compact(row) + b"\n\n")
    if asked.usage:
        parts.append(
            b"data: " + _compact({"id": asked.marker, "choices": [], "usage": usage}) + b"\n\n"
        )
    return Answer(True, (*parts, DONE))


# -- framing ---------------------------------------------------------------------------------------


def unary_head(length: int, status: int = 200, *more: str) -> bytes:
    reason = "OK" if status < 400 else "Error"
    lines = [f"HTTP/1.1 {status} {reason}", "content-type: application/json", *more]
    return "\r\n".join([*lines, f"content-length: {length}"]).encode() + b"\r\n\r\n"


def framed(answer: Answer, rng: random.Random) -> list[bytes]:
    """Head and chunks of a good answer, an event a chunk, or cut anywhere, also inside UTF-8."""
    if not answer.streams:
        return [unary_head(len(answer.body)), answer.body]
    if rng.random() < 0.5:
        return [stream_head(), *map(chunk, answer.parts), LAST_CHUNK]
    return [stream_head(), *map(chunk, _cut(answer.body, rng)), LAST_CHUNK]


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    if len(data) < 2:
        return [data]
    spots = sorted({rng.randrange(1, len(data)) for _ in range(rng.randint(1, 6))})
    bounds = [0, *spots, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def spread(data: Sequence[bytes], rng: random.Random) -> list[Piece]:
    """The same bytes in other writes: as they are, at once, cut anywhere, with pauses."""
    match rng.randrange(4):
        case 0:
            return list(data)
        case 1:
            return [b"".join(data)]
        case 2:
            return list(_cut(b"".join(data), rng))
        case _:
            pieces: list[Piece] = []
            for piece in data[:20]:
                pieces += [piece, rng.uniform(0, 0.01)]
            return [*pieces, *data[20:]]


# -- acts ------------------------------------------------------------------------------------------

Make = Callable[[Asked, random.Random], Act]


def well(asked: Asked, rng: random.Random) -> Act:
    answer = good_answer(asked, rng)
    return Act("well", spread(framed(answer, rng), rng), End.KEEP, 200, answer.body, is_whole=True)


def closes_after(asked: Asked, rng: random.Random) -> Act:
    answer = good_answer(asked, rng)
    pieces = spread(framed(answer, rng), rng)
    return Act("closes-after", pieces, rng.choice([End.FIN, End.FIN, End.RST]), 200, answer.body,
               is_whole=True)  # fmt: skip


def old_manners(asked: Asked, rng: random.Random) -> Act:
    """HTTP/1.0: the end of the connection is the end of the body."""
    answer = good_answer(asked, rng)
    kind = b"text/event-stream" if asked.streams else b"application/json"
    head = b"HTTP/1.0 200 OK\r\ncontent-type: " + kind + b"\r\n\r\n"
    return Act("old-manners", spread([head, answer.body], rng), End.FIN, 200, answer.body,
               is_whole=True)  # fmt: skip


def interim(asked: Asked, rng: random.Random) -> Act:
    answer = good_answer(asked, rng)
    first = rng.choice([b"HTTP/1.1 100 Continue\r\n\r\n",
                        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"])  # fmt: skip
    pieces = spread([first, *framed(answer, rng)], rng)
    return Act("interim", pieces, End.KEEP, 200, answer.body, is_whole=True)


def refuses(asked: Asked, rng: random.Random) -> Act:
    status = rng.choice([400, 404, 422, 429])
    body = _compact({"error": {"message": asked.marker, "code": status}})
    more = ["retry-after: 1"] if status == 429 else []
    return Act("4xx", [unary_head(len(body), status, *more) + body], End.KEEP, status, body,
               is_whole=True)  # fmt: skip


def fails(asked: Asked, rng: random.Random) -> Act:
    status = rng.choice([500, 502, 503, 503])
    body = _compact({"error": {"message": asked.marker, "code": status}})
    more = ["retry-after: 1"] if rng.random() < 0.2 else []
    data = unary_head(len(body), status, *more) + body
    return Act("5xx", spread([data], rng), End.KEEP, status, body, is_whole=True)


def fails_short(asked: Asked, rng: random.Random) -> Act:
    body = _compact({"error": {"message": asked.marker}})
    kept = body[: rng.randrange(len(body))]
    end = rng.choice([End.FIN, End.RST])
    return Act("5xx-short", [unary_head(len(body), 500) + kept], end, 500, body)


def ends_before_head(asked: Asked, rng: random.Random) -> Act:
    head = b"".join(framed(good_answer(asked, rng), rng)).partition(b"\r\n\r\n")[0]
    kept = head[: rng.choice([0, 0, rng.randrange(len(head))])]
    pieces: list[Piece] = [rng.uniform(0, 0.03)] if rng.random() < 0.5 else []
    return Act("ends-before-head", [*pieces, kept], rng.choice([End.FIN, End.RST]))


def ends_after_head(asked: Asked, rng: random.Random) -> Act:
    head = framed(good_answer(asked, rng), rng)[0]
    return Act("ends-after-head", [head], rng.choice([End.FIN, End.RST]), 200)


def breaks_off(asked: Asked, rng: random.Random) -> Act:
    """After n bytes of the body, also in the middle of an event or of a character."""
    answer = good_answer(asked, rng)
    kept = answer.body[: rng.randrange(1, max(2, len(answer.body)))]
    data = [chunk(kept)] if asked.streams else [kept]
    head = stream_head() if asked.streams else unary_head(len(answer.body) + 1)
    end = rng.choice([End.FIN, End.RST, End.RST, End.STALL])
    pause: list[Piece] = [rng.uniform(0, 0.05)] if rng.random() < 0.7 else []
    return Act(
        f"breaks-off-{end.value}", [*spread([head, *data], rng), *pause], end, 200, answer.body
    )


def breaks_a_chunk(asked: Asked, rng: random.Random) -> Act:
    """A chunk announced and not delivered, or framing that is none."""
    answer = good_answer(Asked(asked.marker, True, asked.usage, asked.each), rng)
    some = b"".join(map(chunk, answer.parts[:1]))
    if rng.random() < 0.5:
        rest = answer.body[len(answer.parts[0]) :]
        kept = rest[: rng.randrange(len(rest))]
        pieces = [stream_head(), some, b"%x\r\n" % len(rest) + kept]
        return Act("chunk-cut", pieces, End.FIN, 200, answer.body)
    junk = rng.choice(
        [b"ZZ\r\nxx\r\n", b"-5\r\n", b"\xff\xfe\r\n", b"5\nhello", b"fffffffffffffffff\r\n"]
    )
    return Act("chunk-garbage", spread([stream_head(), some, junk], rng), End.STALL, 200,
               answer.parts[0])  # fmt: skip


TWO_FRAMINGS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"


def garbage_head(asked: Asked, rng: random.Random) -> Act:
    junk = rng.choice(
        [
            b"\x00\x01\x02 no HTTP\r\n\r\n",
            b"HTTP/9.9 banana\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}",
            TWO_FRAMINGS + b"2\r\n{}\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad header line\r\n\r\n",
            rng.randbytes(rng.randint(1, 200)),
            b"POST / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        ]
    )
    return Act("garbage-head", [junk], rng.choice([End.FIN, End.RST]))


def too_short(asked: Asked, rng: random.Random) -> Act:
    """A content-length that promises more than comes."""
    answer = good_answer(Asked(asked.marker, False), rng)
    head = unary_head(len(answer.body) + rng.randint(1, 1000))
    end = rng.choice([End.FIN, End.RST, End.STALL])
    return Act(f"length-too-long-{end.value}", [head, answer.body], end, 200, answer.body)


def too_long(asked: Asked, rng: random.Random) -> Act:
    """A content-length that promises less than comes: what it promised is the answer."""
    answer = good_answer(Asked(asked.marker, False), rng)
    length = len(answer.body) - rng.randint(1, 10)
    return Act("length-too-short", [unary_head(length) + answer.body], End.STALL, 200,
               answer.body[:length], is_whole=True)  # fmt: skip


def trailing(asked: Asked, rng: random.Random) -> Act:
    """Bytes after the end: at once even a whole answer that nobody asked for, later garbage."""
    answer = good_answer(asked, rng)
    whole = b"".join(framed(answer, rng))
    fake = unary_head(14) + b'{"id": "fake"}'
    late = rng.random() < 0.5
    pieces: list[Piece] = [whole, rng.uniform(0.0, 0.03), b"\x00junk"] if late else [whole + fake]
    return Act("trailing-late" if late else "trailing", pieces, End.KEEP, 200, answer.body,
               is_whole=True)  # fmt: skip


def without_done(asked: Asked, rng: random.Random) -> Act:
    answer = good_answer(Asked(asked.marker, True, asked.usage, asked.each), rng)
    parts = Answer(True, answer.parts[:-1])
    return Act("without-done", spread(framed(parts, rng), rng), End.KEEP, 200, parts.body,
               is_whole=True)  # fmt: skip


def crashes(asked: Asked, rng: random.Random) -> Act:
    """As vLLM's engine does: an error inside the stream, then `[DONE]`, and the process is gone."""
    answer = good_answer(Asked(asked.marker, True, asked.usage, asked.each), rng)
    row = {"error": {"message": "EngineCore encountered an issue.", "code": 500}}
    parts = Answer(True, (answer.parts[0], b"data: " + _compact(row) + b"\n\n", DONE))
    return Act("engine-crash", framed(parts, rng), End.FIN, 200, parts.body, is_whole=True)


def silent(asked: Asked, rng: random.Random) -> Act:
    """Not a byte, or a 200 head and then silence."""
    head = framed(good_answer(asked, rng), rng)[0] if rng.random() < 0.5 else b""
    return Act("silent-after-head" if head else "silent", [head], End.STALL, 200 if head else 0)


def drips(asked: Asked, rng: random.Random) -> Act:
    answer = good_answer(asked, rng)
    data = b"".join(framed(answer, rng))
    if len(data) > 4000:
        return well(asked, rng)
    size = rng.randint(1, 7)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return Act("drips", pieces, End.KEEP, 200, answer.body, is_whole=True)


WEIGHTS: dict[Make, int] = {
    well: 500, closes_after: 20, old_manners: 15, interim: 15, refuses: 30, fails: 40,
    fails_short: 15, ends_before_head: 40, ends_after_head: 30, breaks_off: 60,
    breaks_a_chunk: 30, garbage_head: 30, too_short: 15, too_long: 15, trailing: 25,
    without_done: 15, crashes: 10, silent: 8, drips: 15,
}  # fmt: skip
_MAKERS, _SHARES = zip(*WEIGHTS.items(), strict=True)


def draw(asked: Asked, rng: random.Random) -> Act:
    """One act, by weight."""
    (make,) = rng.choices(_MAKERS, _SHARES)
    act: Act = make(asked, rng)
    return act
