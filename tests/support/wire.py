"""Bytes of HTTP/1.1 that an engine sends: heads, chunks, events, and the reading of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the upstream read it.

    Attributes:
        raw: head and body, verbatim.
        connection: number of the connection it came on, from 1.
        at: `time.monotonic()` when its last byte was read.
    """

    raw: bytes
    connection: int
    at: float = field(compare=False)

    @property
    def method(self) -> str:
        return self.raw.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.raw.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case, in the order sent."""
        return parse_headers(self.raw.partition(b"\r\n\r\n")[0])

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The last value of a header, or None."""
        return dict(self.headers).get(name.lower())


def parse_headers(head: bytes) -> list[tuple[str, str]]:
    """Header lines of a head, names in lower case; the start line is skipped."""
    pairs = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return [(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
            for name, value in pairs]  # fmt: skip


def take_request(buffer: bytearray) -> bytes | None:
    """Cut one whole request off the buffer; None while it is short. Bodies have a length."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = int(dict(parse_headers(bytes(buffer[:end]))).get("content-length", "0"))
    total = end + 4 + length
    if len(buffer) < total:
        return None
    raw = bytes(buffer[:total])
    del buffer[:total]
    return raw


def answer(
    body: Any,
    status: int = 200,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str = "application/json",
) -> bytes:
    """A whole unary answer; a body that is not bytes is sent as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}", "server: scripted"]
    lines += [f"content-type: {content_type}", f"content-length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def stream_head(*headers: tuple[str, str]) -> bytes:
    """Head of a chunked event stream, as vLLM sends it."""
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream; charset=utf-8"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "transfer-encoding: chunked"]).encode() + b"\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def event(content: Any) -> bytes:
    """One SSE event with a JSON payload."""
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str) -> bytes:
    """One chat event that carries a piece of text."""
    return event({"object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}]})


def chat_answer(text: str = "hello", model: str = "tiny") -> bytes:
    """A whole unary chat answer."""
    return answer(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text},
                 "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    )  # fmt: skip
