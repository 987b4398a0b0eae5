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
from router.proxy.meter import Answered, Unmetered


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
    def client(self) -> int:
        """What the rate of the client's address is counted under."""

    def header(self, name: str) -> str | None:
        """One header of the request; None where it is not there."""

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

    def refuse(self, error: RouterError, dialect: Dialect, lines: bytes = b"") -> None:
        """Answer with an error of the router's own; `lines` are further header lines."""


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
        meter: what reads the answer's usage and charges it.
        answered: the attempt of which the client has got bytes; None before.
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
    meter: Unmetered
    answered: Answered | None = None
    queued_s: float = 0.0
    connected_s: float = 0.0
    retries: int = 0
