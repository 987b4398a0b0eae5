"""What hostile clients do: drawn from a seed, one visit after the other."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from e2e.chaos.acts import TEXTS, Asked

ANONYMOUS, METERED, POOR = "free", "metered", "poor"
KEYS = {
    ANONYMOUS: "sk-free-0123456789abcdefghijklmnopqrstuvw",
    METERED: "sk-metered-0123456789abcdefghijklmnopqrs",
    POOR: "sk-poor-0123456789abcdefghijklmnopqrstuvw",
}
MODEL, NARROW = "wide", "narrow"
PATHS = {
    "/v1/chat/completions": 60,
    "/v1/completions": 15,
    "/v1/embeddings": 8,
    "/v1/messages": 8,
    "/v1/responses": 8,
}
COUNTED = {"/v1/chat/completions", "/v1/completions"}
MANNERS = {
    "fresh": 300, "reuse": 420, "pipeline": 40, "old": 20, "chunked": 20, "expect": 10,
    "drip": 15, "leave": 120, "half-close": 10, "slow-reader": 8, "no-reader": 4,
    "bad": 60, "late-head": 2, "late-body": 2,
}  # fmt: skip
PHASES = ("connect", "head", "body", "sent", "sent", "first", "some", "some")


@dataclass(frozen=True, slots=True)
class Bad:
    """A request that must not reach an engine.

    Attributes:
        data: to be sent.
        statuses: one of these must come; 0: closed without a word is fine.
        codes: one of these, where there is an answer.
    """

    name: str
    data: bytes
    statuses: tuple[int, ...]
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """One good request.

    Attributes:
        id: of the exchange, unique in the run.
        streams: an event stream is wanted.
        usage, each: what usage the client asks for.
        filtered: the router may ask for usage by itself, and takes it out of the answer.
    """

    id: str
    path: str
    model: str
    streams: bool
    usage: bool
    each: bool
    large: bool
    filtered: bool
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    def asked(self, attempt: int) -> Asked:
        """What the client asked the engine for."""
        return Asked(f"{self.id}.{attempt}", self.streams, self.usage, self.each, self.large)


@dataclass(frozen=True, slots=True)
class Visit:
    """What one client does.

    Attributes:
        wishes: its requests; several where it pipelines, none where it sends nonsense.
        phase, spot, delay: when it leaves: how far, at which share, after how many seconds.
        resets: it leaves by RST.
    """

    number: int
    manner: str
    wishes: tuple[Wish, ...] = ()
    bad: Bad | None = None
    phase: str = ""
    spot: float = 0.0
    delay: float = 0.0
    resets: bool = False


def draw(seed: str, number: int) -> Visit:
    """Visit `number` of the seed."""
    rng = random.Random(f"{seed}/visit/{number}")
    (manner,) = rng.choices(list(MANNERS), list(MANNERS.values()))
    if manner == "bad":
        return Visit(number, manner, bad=_bad(rng))
    count = rng.randint(2, 4) if manner == "pipeline" else 1
    wishes = tuple(_wish(f"{seed}-{number}-{part}", manner, rng) for part in range(count))
    phase = rng.choice(PHASES) if manner == "leave" else ""
    delay = rng.choice([0.0, 0.0, rng.uniform(0, 0.05)])
    return Visit(number, manner, wishes, None, phase, rng.random(), delay, rng.random() < 0.5)


def _wish(name: str, manner: str, rng: random.Random) -> Wish:
    (path,) = rng.choices(list(PATHS), list(PATHS.values()))
    streams = path != "/v1/embeddings" and rng.random() < 0.6
    usage = streams and path in COUNTED and rng.random() < 0.3
    each = usage and rng.random() < 0.3
    model = rng.choices([MODEL, NARROW], [9, 1])[0]
    large = manner in {"slow-reader", "no-reader"}
    content: dict[str, Any] = {"model": model, "user": name, "max_tokens": 16}
    size = 400_000 if rng.random() < 0.005 else rng.randint(0, 40)
    content["messages"] = [{"role": "user", "content": rng.choice(TEXTS) + "ü" * size}]
    if streams:
        content["stream"] = True
    if usage:
        content["stream_options"] = {"include_usage": True}
        if each:
            content["stream_options"]["continuous_usage_stats"] = True
    body = json.dumps(content, ensure_ascii=rng.random() < 0.5).encode()
    (owner,) = rng.choices(list(KEYS), [5, 4, 1])
    head = _head(path, name, KEYS[owner], manner, len(body))
    return Wish(
        name, path, model, streams, usage, each, large, streams and path in COUNTED, head, body
    )


def _head(path: str, name: str, key: str, manner: str, length: int) -> bytes:
    version = "1.0" if manner == "old" else "1.1"
    lines = [f"POST {path} HTTP/{version}", "host: router", "content-type: application/json",
             f"authorization: Bearer {key}", f"x-request-id: {name}"]  # fmt: skip
    lines.append(
        "transfer-encoding: chunked" if manner == "chunked" else f"content-length: {length}"
    )
    if manner == "expect":
        lines.append("expect: 100-continue")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def on_the_wire(wish: Wish, manner: str, rng: random.Random) -> bytes:
    """Head and body as this client frames them."""
    if manner != "chunked":
        return wish.head + wish.body
    out, at = bytearray(wish.head), 0
    while at < len(wish.body):
        piece = wish.body[at : at + rng.randint(1, 1 + len(wish.body) // 2)]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        at += len(piece)
    return bytes(out + b"0\r\n\r\n")


# -- nonsense --------------------------------------------------------------------------------------


def _post(body: bytes, *more: str, path: str = "/v1/chat/completions", key: str | None = None,
          length: int | None = None, method: str = "POST") -> bytes:  # fmt: skip
    lines = [f"{method} {path} HTTP/1.1", "host: router", "content-type: application/json", *more]
    lines.append(f"authorization: Bearer {KEYS[ANONYMOUS] if key is None else key}")
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: router\r\n"
CHUNKED = b"\r\ntransfer-encoding: chunked\r\n\r\n"


def _bad(rng: random.Random) -> Bad:
    good = b'{"model": "wide", "messages": []}'
    rows = [
        Bad("not-json", _post(b'{"model": '), (400,), ("invalid_json",)),
        Bad("no-object", _post(b'["wide"]'), (400,), ("invalid_json",)),
        Bad("no-model", _post(b'{"messages": []}'), (400,), ("missing_model",)),
        Bad("odd-model", _post(b'{"model": 7}'), (400,), ("invalid_model",)),
        Bad("unknown-model", _post(b'{"model": "nope"}'), (404,), ("model_not_found",)),
        Bad("bad-utf8", _post(b'{"model": "wi\xff\xfede"}'), (400, 404),
            ("invalid_json", "model_not_found", "invalid_model")),
        Bad("no-path", _post(good, path="/v1/nope"), (404,), ("unknown_path",)),
        Bad("method", _post(good, method="PUT"), (405,), ("method_not_allowed",)),
        Bad("bad-key", _post(good, key="sk-nobody"), (401,), ("invalid_api_key",)),
        Bad("too-large", _post(b"{", length=50_000_000), (413,), ("request_too_large",)),
        Bad("noise", rng.randbytes(rng.randint(20, 400)) + b"\r\n\r\n", (400, 0),
            ("invalid_request",)),
        Bad("huge-head", _post(good, "x: " + "y" * 200_000), (400, 431), ("invalid_request",)),
        Bad("bad-chunk", START + b"authorization: Bearer " + KEYS[ANONYMOUS].encode() + CHUNKED
            + b"ZZ\r\n{}\r\n0\r\n\r\n", (400, 0), ("invalid_request",)),
        Bad("two-framings", START + b"content-length: 5" + CHUNKED + b"0\r\n\r\nGET /x",
            (400, 401, 0), ("invalid_request", "missing_api_key")),
    ]  # fmt: skip
    return rng.choice(rows)
