"""What the data plane sees of a client: a request that is whole, and an answer to be written.

Pipeline, forwarder and relay know these protocols alone, never the connection behind them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from router.access.keyring import Badge
from router.config.settings import ServerSettings
from router.errors import RouterError
from router.openai.paths import Dialect, InferencePath
from router.proxy.meter import Unmetered


class Flow(Protocol):
    """Who is asked to hold back while the client does not keep up."""

    def pause(self) -> None:
        """Bring no more bytes."""

    def resume(self) -> None:
        """Go on."""


class Journey(Protocol):
    """Who is told when the client leaves."""

    def client_gone(self) -> bool:
        """Give back what was taken for it; whether a service had been asked."""


class Exchange(Protocol):
    """One request and its answer. The answer ends with `finish`, `cut` or `refuse`, once.

    Attributes:
        request_id: 1-128 sane characters; told to the engine and in the answer.
        lines: the request's header lines that cross, each ended by CRLF.
        noted: lower-case name -> value of every header.
        model: full name of what it asks for, once that is known; for the log.
        started: monotonic time at which the request's head was there, seconds.
        dialect: form of errors.
        rate_lines: header lines for the router's own errors, each ended by CRLF.
        flow: asked to pause and resume while the answer is relayed.
        journey: told when the client leaves.
    """

    request_id: bytes
    lines: bytes
    noted: dict[bytes, bytes]
    model: str
    started: float
    dialect: Dialect
    rate_lines: bytes
    flow: Flow | None
    journey: Journey | None

    @property
    def badge(self) -> Badge:
        """What its connection has shown of its key."""

    @property
    def client(self) -> int:
        """What the rate of the client's address is counted under."""

    @property
    def body(self) -> bytes:
        """The whole body, until `forget_body`."""

    def forget_body(self) -> None:
        """Keep the body no longer: a call has it, perhaps in another form."""

    def header(self, name: bytes) -> str | None:
        """A header that the router reads itself; None where it is not there."""

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

    def refuse(self, error: RouterError) -> None:
        """Answer with an error of the router's own."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to wait in a task, which ends with the client."""


class Call(msgspec.Struct, gc=False):
    """A request that was admitted: what to send, and where it may go.

    Attributes:
        path: its row in the table of paths.
        model: full name, as engines know it.
        request_id: see `Exchange`.
        body: to be sent.
        lines: end-to-end header lines, each ended by CRLF.
        limits: timeouts that hold for it, whatever a reload brings meanwhile.
        started: monotonic time of the request's head.
        admitted: monotonic time at which it could have been sent.
        meter: what reads the answer's usage and charges it.
        organization: whose turn it takes in a queue; empty for the anonymous.
        priority: in a queue, higher goes first.
        key_id: what logs call the client's key; None without one.
        traceparent: the client's header of that name, W3C Trace Context; None without one.
        queued_s: seconds it waited for a slot.
        connected_s: seconds that connecting took.
    """

    path: InferencePath
    model: str
    request_id: bytes
    body: bytes
    lines: bytes
    limits: ServerSettings
    started: float
    admitted: float
    meter: Unmetered
    organization: str = ""
    priority: int = 0
    key_id: str | None = None
    traceparent: bytes | None = None
    queued_s: float = 0.0
    connected_s: float = 0.0
