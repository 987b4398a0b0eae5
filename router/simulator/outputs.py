"""Where an engine's tokens go: into one answer, or out as events at once."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import web

from router.simulator.engine import Sequence
from router.simulator.text import Token

#: Bytes that may wait in the socket before tokens are merged instead of written.
_HIGH_WATER = 64 * 1024


class Collector:
    """Keeps the tokens of every sequence until all have finished."""

    def __init__(self, transport: asyncio.Transport | None, count: int) -> None:
        self._transport = transport
        self._unfinished = count
        self.tokens: list[list[Token]] = [[] for _ in range(count)]
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        """Whether the client has gone."""
        return self._transport is None or self._transport.is_closing()

    def emit(self, sequence: Sequence, token: Token) -> None:
        """Keep a token; the last one of the last sequence completes `done`."""
        self.tokens[sequence.index].append(token)
        if token.finish is not None:
            self._unfinished -= 1
            if not self._unfinished and not self.done.done():
                self.done.set_result(None)


class Events(Protocol):
    """The events of one path's stream; each is one `bytes`, its blank line included."""

    def opening(self) -> list[bytes]:
        """What comes before the first token."""
        ...

    def delta(self, sequence: Sequence, tokens: list[Token]) -> list[bytes]:
        """What these tokens, the sequence's latest, add."""
        ...

    def closing(self, sequences: list[Sequence]) -> list[bytes]:
        """What comes after the last token of the last of the request's sequences."""
        ...


class EventStream:
    """Writes each token's event in the step that made it.

    The event goes to the transport directly, one HTTP chunk each, so that a step of a thousand
    streams wakes no task. While a client does not read, its tokens pile up and are merged.
    """

    def __init__(self, transport: asyncio.Transport | None, events: Events, count: int) -> None:
        self._transport = transport
        self._events = events
        self._unfinished = count
        self._response: web.StreamResponse | None = None
        self._chunked = False
        self._begun = False
        self._pending: dict[Sequence, list[Token]] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        """Whether the client has gone."""
        return self._transport is None or self._transport.is_closing()

    def emit(self, sequence: Sequence, token: Token) -> None:
        """Send a token, or keep it for the next event while the client does not read."""
        self._pending.setdefault(sequence, []).append(token)
        if token.finish is not None:
            self._unfinished -= 1
            if not self._unfinished and not self.done.done():
                self.done.set_result(None)
        self._flush()

    def start(self, response: web.StreamResponse) -> None:
        """The head is out; from now on events may follow."""
        self._response = response
        self._chunked = response.headers.get("Transfer-Encoding") == "chunked"
        self._flush()

    async def finish(self, sequences: list[Sequence]) -> None:
        """Send what is left, as slowly as the client reads, and the end of the stream."""
        response = self._response
        if response is None:
            return
        for event in (*self._take(), *self._events.closing(sequences)):
            await response.write(event)
        await response.write_eof()

    def _flush(self) -> None:
        transport = self._transport
        if self._response is None or transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > _HIGH_WATER:
            return
        for event in self._take():
            transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)

    def _take(self) -> list[bytes]:
        if not self._pending:
            return []
        events = [] if self._begun else self._events.opening()
        self._begun = True
        for sequence, tokens in self._pending.items():
            events += self._events.delta(sequence, tokens)
        self._pending.clear()
        return events
