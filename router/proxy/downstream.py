"""Owner of the connections from clients: how many there are, what they hold, when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from router.config.settings import ServerSettings
from router.errors import Overloaded, RouterError
from router.proxy.client import ClientExchange
from router.proxy.connection import ClientConnection
from router.proxy.headers import to_upstream
from router.proxy.websocket import Upgrade


class Handler(Protocol):
    """Who answers. Called from the socket's callbacks; does not await."""

    def head(self, exchange: ClientExchange) -> None:
        """The head is there: its body may come, or the request is refused.

        Raises:
            RouterError: the answer.
        """

    def again(self, exchange: ClientExchange) -> None:
        """Look at it once more: its turn has come, after that of others.

        Raises:
            RouterError: the answer.
        """

    def request(self, exchange: ClientExchange) -> None:
        """The request is whole, and was not refused."""

    def refusing(self, exchange: ClientExchange) -> None:
        """It is refused, at whatever point: say what form and lines its answer has."""

    def upgrade(self, exchange: ClientExchange) -> Upgrade | None:
        """Who goes on with the connection in the protocol that the head asks for; None: nobody.

        Raises:
            RouterError: the answer.
        """


class Downstream:
    """Owner of the client connections; makes one for each that is accepted.

    Args:
        handler: answers requests.
        settings: asked for anew at each use, so that a reload counts.
        loop: that the connections run on.
        refused: told of every error that the router itself answers with, and of the request.
        left: told of a request whose client left before any service was asked.

    Attributes:
        handler: see above.
        headers: says which of a request's headers cross.
        active: requests that are being answered.
        body_bytes: of request bodies, held now.
    """

    def __init__(
        self,
        handler: Handler,
        settings: Callable[[], ServerSettings],
        loop: asyncio.AbstractEventLoop,
        refused: Callable[[RouterError, ClientExchange | None], None] = lambda _e, _x: None,
        left: Callable[[ClientExchange], None] = lambda _x: None,
    ) -> None:
        self.handler = handler
        self.refused = refused
        self.left = left
        self.body_bytes = 0
        self.settings = settings
        self.loop = loop
        self.headers = to_upstream()
        self.active = 0
        self._drained: asyncio.Event | None = None
        self._clients: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        """Make the protocol of a new connection."""
        return ClientConnection(self)

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._clients)

    def finished(self) -> None:
        """A request has been answered, or left."""
        self.active -= 1
        if self._drained is not None:
            self._tell_drained(self._drained)

    async def drained(self) -> None:
        """Wait until nothing is being answered, nor will be of what was let in by its head."""
        self._drained = asyncio.Event()
        self._tell_drained(self._drained)
        await self._drained.wait()

    def _tell_drained(self, drained: asyncio.Event) -> None:
        if not self.active and not any(client.owes for client in self._clients):
            drained.set()

    def opened(self, client: ClientConnection) -> None:
        """A connection is there."""
        self._clients.add(client)
        limit = self.settings().max_connections
        if len(self._clients) > limit:
            client.refuse(Overloaded(f"The router has its {limit} connections.", retry_after_s=1))

    def closed(self, client: ClientConnection) -> None:
        """A connection has ended."""
        self._clients.discard(client)

    def sweep(self, now: float) -> None:
        """End waits that have been too long; `now` in monotonic seconds."""
        for client in tuple(self._clients):
            client.check(now)
        if self._drained is not None:  # a client that was waited for may have left
            self._tell_drained(self._drained)

    def close(self) -> None:
        """Close every connection, after what is written has gone; who still sends is told why."""
        for client in tuple(self._clients):
            client.close()
