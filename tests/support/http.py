"""A raw HTTP/1.1 client over one socket: sends exact bytes, and says exactly what came back."""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any, Self

from support.wire import parse_headers

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Dechunker:
    """Takes chunked framing off a body, piece by piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Bytes of the body in this piece, be the chunk whole or not."""
        self._buffer += data
        out = bytearray()
        while self._buffer and not self.ended and self._step(out):
            pass
        return bytes(out)

    def _step(self, out: bytearray) -> bool:
        if self._left > 2:
            piece = self._buffer[: self._left - 2]
            del self._buffer[: len(piece)]
            out += piece
            self._left -= len(piece)
            return True
        if self._left:
            taken = min(self._left, len(self._buffer))
            assert b"\r\n"[2 - self._left :].startswith(self._buffer[:taken]), "chunk does not end"
            del self._buffer[:taken]
            self._left -= taken
            return True
        line, mark, _ = bytes(self._buffer).partition(b"\r\n")
        if not mark:
            return False
        size = int(line.split(b";")[0], 16)
        if size == 0 and len(self._buffer) < len(line) + 4:
            return False
        self.ended = size == 0
        del self._buffer[: len(line) + (4 if self.ended else 2)]
        self._left = size + 2 if size else 0
        return True

    @property
    def surplus(self) -> bytes:
        """What came after the body, once that has ended."""
        return bytes(self._buffer) if self.ended else b""


class Response:
    """An answer whose body may still be on its way.

    Attributes:
        status: HTTP status.
        headers: names in lower case, in the order sent.
        body: what has come of the body, framing taken off.
        whole: the framing said that the body is at its end.
    """

    def __init__(self, client: Client, head: bytes, rest: bytes, *, no_body: bool) -> None:
        self._client = client
        self.head = head
        self.status = int(head.split(b" ", 2)[1])
        self.headers = parse_headers(head)
        self.body = b""
        self.whole = False
        self.closed = False
        self._dechunker = Dechunker() if self.header("transfer-encoding") == "chunked" else None
        length = self.header("content-length")
        self._length = 0 if no_body else None if length is None else int(length)
        self._take(rest)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of the contract's JSON form, checked."""
        content = self.json
        assert set(content) == {"error"}, content
        assert set(content["error"]) == {"message", "type", "param", "code"}, content
        assert isinstance(content["error"]["message"], str)
        assert (self.header("content-type") or "").startswith("application/json")
        return content["error"]

    @property
    def events(self) -> list[bytes]:
        """The events of the body, each without its blank line."""
        return [part for part in self.body.split(b"\n\n") if part]

    def more(self) -> bytes:
        """Wait for bytes and give what they add to the body; empty when it is over."""
        before = len(self.body)
        while len(self.body) == before and not self.whole and not self.closed:
            data = self._client.receive()
            if data:
                self._take(data)
            else:
                self.closed = True
                self.whole = self._dechunker is None and self._length is None
        return self.body[before:]

    def read(self) -> Self:
        """Wait until the body is over, whole or broken off."""
        while self.more():
            pass
        return self

    def read_until(self, mark: bytes) -> bytes:
        """Wait until the body holds these bytes."""
        while mark not in self.body:
            assert self.more(), f"{mark!r} never came; body: {self.body[-300:]!r}"
        return self.body

    def _take(self, data: bytes) -> None:
        if self._dechunker is not None:
            self.body += self._dechunker.feed(data)
            self.whole = self._dechunker.ended
            self._client.surplus = self._dechunker.surplus
            return
        self.body += data
        if self._length is not None:
            self.whole = len(self.body) >= self._length
            self._client.surplus = self.body[self._length :]
            self.body = self.body[: self._length]


class Client:
    """One connection to a server on loopback.

    Args:
        port: where it listens.
        timeout: seconds any single read may take.
        receive_buffer: SO_RCVBUF in bytes, for tests of backpressure.
    """

    def __init__(
        self, port: int, *, timeout: float = 20, receive_buffer: int | None = None
    ) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(timeout)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = port
        self.surplus = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Write exactly these bytes."""
        self._socket.sendall(data)

    def end_sending(self) -> None:
        """Send nothing more, and go on to read."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes:
        """What comes next; empty when the peer has closed or broken the connection."""
        try:
            return self._socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def hears_nothing(self, seconds: float) -> bool:
        """True when not a byte comes in this time."""
        return not select.select([self._socket], [], [], seconds)[0]

    def response(self, *, no_body: bool = False) -> Response | None:
        """The next answer once its head is there; None when the peer closed without one."""
        buffer, self.surplus = self.surplus, b""
        while b"\r\n\r\n" not in buffer:
            data = self.receive()
            if not data:
                assert not buffer, f"closed inside a head: {buffer[:200]!r}"
                return None
            buffer += data
        head, _, rest = buffer.partition(b"\r\n\r\n")
        return Response(self, head, rest, no_body=no_body)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """Send a well-formed request and wait for the answer's head."""
        self.send(encode(method, path, body, headers))
        response = self.response(no_body=method == "HEAD")
        assert response is not None, "closed without an answer"
        return response

    def finish_sending(self) -> None:
        """Half-close: FIN, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End by FIN."""
        self._socket.close()

    def reset(self) -> None:
        """End by RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.close()


def encode(
    method: str, path: str, body: Any = None, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """Bytes of a well-formed request; a body that is not bytes is sent as JSON."""
    payload = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    lines = [f"{method} {path} HTTP/1.1", "host: router.test"]
    if body is not None:
        lines.append(f"content-length: {len(payload)}")
        if "content-type" not in {name.lower() for name, _ in headers}:
            lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def call(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    timeout: float = 20,
) -> Response:
    """One request on a connection of its own, its answer read to the end."""
    with Client(port, timeout=timeout) as client:
        return client.request(method, path, body, headers).read()


def chat(model: str = "tiny", *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """Body of a small chat request."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **more}
    return {**body, "stream": True} if stream else body
