"""One HTTP/1.1 connection of the load generator, and what all connections report to."""

import asyncio
import time
from typing import cast

import httptools


class LoadError(Exception):
    """Some answer was not the one that the backend sends, or did not come."""


class Outcome:
    """What the connections report to: counts what is still missing, keeps the first error."""

    def __init__(self) -> None:
        self._missing: set[object] = set()
        self._errors: list[str] = []
        self._idle = asyncio.Event()

    def expect(self, answer: object) -> None:
        self._missing.add(answer)
        self._idle.clear()

    def arrived(self, answer: object) -> None:
        self._missing.discard(answer)
        if not self._missing:
            self._idle.set()

    def fail(self, answer: object, why: str) -> None:
        self._errors.append(why)
        self.arrived(answer)

    async def settle(self, seconds: float) -> None:
        """Wait for the answers that are missing; raise LoadError on any that is wrong or late."""
        try:
            async with asyncio.timeout(seconds):
                if self._missing:
                    await self._idle.wait()
        except TimeoutError:
            self._errors.append(f"{len(self._missing)} answers never ended")
        if self._errors:
            raise LoadError(f"{len(self._errors)} wrong answers; the first: {self._errors[0]}")


class Client(asyncio.Protocol):
    """One connection with at most one request under way; the parser calls the `on_` methods."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False
        self._now = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._fail(f"connection lost in the middle of an answer: {exc or 'closed'}")

    def begin(self, request: bytes) -> None:
        self._busy = True
        self._outcome.expect(self)
        if self.transport.is_closing():
            self._fail("the idle connection was closed")
        else:
            self.transport.write(request)

    def finish(self, problem: str | None) -> None:
        if problem:
            self._fail(problem)
        else:
            self._busy = False
            self._outcome.arrived(self)

    def _fail(self, why: str) -> None:
        self._busy = False
        self._outcome.fail(self, why)
        self.transport.abort()
