"""Owner of the connections to engines: one keep-alive pool an engine, and what opens a request."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from time import monotonic

import aiohappyeyeballs

from router.proxy.answer import ConnectFailed
from router.proxy.headers import PASSED, HeaderFilter, to_downstream
from router.proxy.upstream_connection import Target, UpstreamConnection

IDLE_LIMIT_S = 4.0
"""vLLM (uvicorn) closes a connection that is idle for 5 s, without a word."""
CONNECT_TIMEOUT_S = 5.0
_NEXT_ADDRESS_S = 0.25
"""What an address of a name has for itself, before the next is tried beside it (RFC 8305)."""


def request_head(start: bytes, lines: bytes, length: int, request_id: bytes | None = None) -> bytes:
    """The head of a POST to an engine: written anew, with its own framing.

    Args:
        start: request line, host, key and who sends it, see `UpstreamPool.start_of`.
        lines: further header lines, each ended by CRLF.
        length: of the body in bytes.
        request_id: told to the engine; None: it makes its own.
    """
    if request_id is None:
        return b"%b%bcontent-length: %d\r\n\r\n" % (start, lines, length)
    return b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        start,
        lines,
        request_id,
        length,
    )


def _is_address(host: str) -> bool:
    """Whether a host is an IP address, so that there is no name to look up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _words(error: OSError | RuntimeError) -> str:
    """What the OS says of a failed connection, without what loops add of their own.

    Where addresses failed in different ways there is no one number, and all of it is told.
    """
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


class UpstreamPool:
    """The connections to one engine. Bounded by what runs at once, not by a number of its own.

    The connection used last is used next, so that the others age and go.

    Args:
        target: where the engine listens.
        loop: that its connections run on.
        headers: says which of an answer's headers cross.
        instance: what this router calls itself; told with every request, to know it by if it
            comes back.
    """

    def __init__(
        self,
        target: Target,
        loop: asyncio.AbstractEventLoop,
        headers: HeaderFilter,
        instance: str = "",
    ) -> None:
        self.target = target
        self.headers = headers
        self._loop = loop
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        self._tls = ssl.create_default_context() if target.tls else None
        self._named = not _is_address(target.host)
        self._passed = f"{PASSED.decode()}: {instance}\r\n" if instance else ""
        self._starts: dict[tuple[str, str | None], bytes] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<UpstreamPool {self.target.authority} idle={self.idle} busy={self.busy}>"

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections that carry one."""
        return len(self._open) - len(self._idle)

    def start_of(self, path: str, key: str | None) -> bytes:
        """The first lines of a POST to `path` with the engine's key; made once for each."""
        start = self._starts.get((path, key))
        if start is None:
            told = f"authorization: Bearer {key}\r\n" if key else ""
            to = f"POST {path} HTTP/1.1\r\nhost: {self.target.authority}\r\n"
            start = f"{to}{told}{self._passed}".encode()
            self._starts[path, key] = start
        return start

    def take_idle(self) -> UpstreamConnection | None:
        """A connection that may be used again, or None."""
        oldest = monotonic() - IDLE_LIMIT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closed:
                continue
            if connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a new connection.

        Raises:
            ConnectFailed: refused, not resolved, no TLS, or not there in time.
        """
        connection = UpstreamConnection(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._establish(connection)
        except TimeoutError:
            self._drop(connection)
            raise ConnectFailed(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except OSError as error:
            self._drop(connection)
            raise ConnectFailed(error.strerror or str(error)) from error
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        return connection

    async def _establish(self, connection: UpstreamConnection) -> None:
        """Connect `connection`: at once where the host is an address, else to a name's fastest."""
        target, tls = self.target, self._tls
        if not self._named:
            await self._loop.create_connection(
                lambda: connection, target.host, target.port, ssl=tls
            )
            return
        sock = await self._fastest()
        # From here on the socket is the loop's, which closes it whatever happens.
        await self._loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=tls,
            server_hostname=target.host if tls is not None else None,
        )

    async def _fastest(self) -> socket.socket:
        """A socket to the first address of the host's name that takes it.

        One after the other, a first address that says nothing would use up the time of them all.
        """
        addresses = await self._loop.getaddrinfo(
            self.target.host, self.target.port, type=socket.SOCK_STREAM
        )
        if not addresses:
            raise OSError("the name has no address")
        try:
            return await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=self._loop
            )
        except TimeoutError:
            raise
        except (OSError, RuntimeError) as error:  # uvloop has RuntimeErrors of its own
            raise OSError(_words(error)) from error

    def _drop(self, connection: UpstreamConnection) -> None:
        """Forget a connection that nobody waits for any more; uvloop does not tell of its end."""
        connection.abort()
        self.forget(connection)

    def opened(self, connection: UpstreamConnection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange has ended whole, unless its engine has gone."""
        if self._closed:
            connection.abort()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = monotonic() - IDLE_LIMIT_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().abort()

    def close(self) -> None:
        """Close what is idle, now or when it comes back; its exchange's owner ends what is busy."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()


class Upstreams:
    """The pools of all engines, by base URL, so that a rename keeps them.

    Args:
        loop: that their connections run on.
        instance: what this router calls itself, see `UpstreamPool`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, instance: str = "") -> None:
        self._loop = loop
        self._instance = instance
        self._headers = to_downstream()
        self._pools: dict[str, UpstreamPool] = {}

    def pool(self, url: str) -> UpstreamPool:
        """The pool of the engine at `url`."""
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = UpstreamPool(
                Target.of(url), self._loop, self._headers, self._instance
            )
        return pool

    def retain(self, urls: Iterable[str]) -> None:
        """Close the pools of engines that are no longer in the fleet."""
        for url in self._pools.keys() - set(urls):
            self._pools.pop(url).close()

    def sweep(self) -> None:
        """Close every connection that has been idle for too long."""
        for pool in self._pools.values():
            pool.sweep()

    def counts(self) -> tuple[int, int]:
        """(idle, busy) connections of all pools."""
        pools = self._pools.values()
        return sum(pool.idle for pool in pools), sum(pool.busy for pool in pools)

    def close(self) -> None:
        """Close every idle connection."""
        self.retain(())
