"""What an engine's answer is to who listens: its head, its bytes, its end, or why there is none.

Every foreign failure becomes an `UpstreamError` where a connection is made (`upstream.py`) or read
(`upstream_connection.py`), and nowhere else.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class UpstreamError(Exception):
    """An exchange that the engine did not finish. `kind` is a metrics label."""

    kind = "error"


class ConnectFailed(UpstreamError):
    """No connection could be made."""

    kind = "connect"


class Disconnected(UpstreamError):
    """The connection ended before the answer did."""

    kind = "disconnect"


class MalformedAnswer(UpstreamError):
    """What came is not HTTP/1.1."""

    kind = "malformed"


class Head(msgspec.Struct, frozen=True, gc=False):
    """An answer's head.

    Attributes:
        status: of the status line.
        reason: of the status line, perhaps empty.
        lines: the header lines that cross, each ended by CRLF.
        length: the body's content-length in bytes, None where it is framed otherwise.
        streams: the body is a stream of events.
        retry_after: the header of that name, as it came.
    """

    status: int
    reason: bytes
    lines: bytes
    length: int | None
    streams: bool
    retry_after: bytes | None


class Listener(Protocol):
    """Who is told of an answer, in order: head, data (any number), then end or broken."""

    def on_head(self, head: Head) -> None:
        """The final head; interim ones (1xx) are not told."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body, without framing: all that one read brought."""

    def on_end(self) -> None:
        """The answer is whole."""

    def on_broken(self, error: UpstreamError) -> None:
        """It will not be whole."""
