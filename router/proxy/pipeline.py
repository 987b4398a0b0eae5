"""The whole way of a request, on one screen: read, admit, forward; errors are answered here."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.errors import Draining, RouterError
from router.fleet.fleet import Fleet
from router.metrics import Metrics
from router.proxy.admit import Entry, read
from router.proxy.exchange import Call, Exchange
from router.proxy.forward import Forwarder
from router.proxy.headers import to_upstream


class Pipeline:
    """Takes one exchange from its head to its end.

    Args:
        draining: seconds a client should wait before it tries again; None while requests are taken.
    """

    def __init__(
        self,
        fleet: Fleet,
        forwarder: Forwarder,
        metrics: Metrics,
        draining: Callable[[], float | None],
    ) -> None:
        self._fleet = fleet
        self._forwarder = forwarder
        self._metrics = metrics
        self._draining = draining

    async def serve(self, exchange: Exchange, entry: Entry) -> None:
        """Answer an inference request. Leaves with the answer written, or with the client gone."""
        try:
            retry_after_s = self._draining()
            if retry_after_s is not None:
                raise Draining("The router is shutting down.", retry_after_s=retry_after_s)
            body = await exchange.read_body()
            await self._forwarder.forward(exchange, self._admit(exchange, entry, body))
        except RouterError as error:
            self._metrics.rejections[error.code] += 1
            exchange.refuse(error, entry.path.dialect)

    def _admit(self, exchange: Exchange, entry: Entry, body: bytes) -> Call:
        wanted = read(entry, body, exchange.content_type, self._fleet.catalog)
        return Call(
            path=entry.path,
            model=wanted.model,
            request_id=exchange.request_id,
            body=wanted.body,
            lines=to_upstream(exchange.headers),
            started=exchange.started,
            admitted=monotonic(),
        )
