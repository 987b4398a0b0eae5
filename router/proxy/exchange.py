"""What the data plane sees of a client: a request that was read, and an answer to be written.

The pipeline knows this protocol alone, never the HTTP server behind it, so that another front can
take aiohttp's place without a change here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from router.errors import RouterError
from router.openai.paths import Dialect, InferencePath
from router.proxy.headers import Headers


class Flow(Protocol):
    """Who is asked to hold back while the client does not keep up."""

    def pause(self) -> None:
        """Bring no more bytes."""

    def resume(self) -> None:
        """Go on."""


class Exchange(Protocol):
    """One request and its answer.

    Attributes:
        request_id: 1-128 sane characters; told to the engine and in the answer.
        headers: the request's, as they came.
        content_type: of the request's body; empty when not told.
        started: monotonic time at which the request's head was there, seconds.
        begun: bytes of the answer have been written.
        flow: asked to pause and resume while the answer is relayed.
    """

    request_id: bytes
    started: float
    begun: bool
    flow: Flow | None

    @property
    def headers(self) -> Headers:
        """The request's headers, as they came."""

    @property
    def content_type(self) -> str:
        """Media type of the request's body, with parameters."""

    async def read_body(self) -> bytes:
        """The whole body.

        Raises:
            RequestTooLarge, RequestTimeout, BadRequest: what arrived is not one.
        """

    def start(
        self, status: int, reason: bytes, lines: bytes, length: int | None, first: bytes
    ) -> None:
        """Write the head and the first bytes of the body in one go.

        `lines` are header lines ended by CRLF, without framing; `length` is the body's whole
        length, None where only the end will tell.
        """

    def write(self, data: bytes) -> None:
        """Write more of the body."""

    def finish(self) -> None:
        """The body is whole."""

    def cut(self) -> None:
        """Close the connection: the answer is not whole and must not look so."""

    def refuse(self, error: RouterError, dialect: Dialect) -> None:
        """Answer with an error of the router's own."""


@dataclass(slots=True)
class Call:
    """A request that was admitted: what to send, and where it may go.

    Attributes:
        path: its row in the table of paths.
        model: full name, as engines know it.
        body: to be sent, aliases already spliced.
        lines: end-to-end header lines, each ended by CRLF.
        started: monotonic time of the request's head.
        admitted: monotonic time at which it could have been sent.
        queued_s: seconds it waited for a slot.
        connected_s: seconds that connecting took.
        retries: attempts after the first.
    """

    path: InferencePath
    model: str
    request_id: bytes
    body: bytes
    lines: bytes
    started: float
    admitted: float
    queued_s: float = 0.0
    connected_s: float = 0.0
    retries: int = 0
