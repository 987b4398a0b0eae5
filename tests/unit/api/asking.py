"""Requests for pages, as the table of paths hands them on."""

from __future__ import annotations

from types import SimpleNamespace

from router.config.settings import ServerSettings
from router.proxy.client import ClientExchange
from router.proxy.downstream import Downstream


def asking(
    path: str = "/",
    *headers: tuple[bytes, bytes],
    peer: str = "127.0.0.1",
    settings: ServerSettings | None = None,
) -> ClientExchange:
    """A request from `peer` with these headers, names in lower case."""
    server = settings or ServerSettings()
    downstream = Downstream(None, lambda: server, None)
    connection = SimpleNamespace(peer=peer, peer_key=0)
    return ClientExchange(connection, downstream, b"GET", path.encode(), list(headers))
