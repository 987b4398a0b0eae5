"""The whole way of a request, on one screen; whatever goes wrong on it is answered here."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.access.door import Door
from router.access.identity import Identity
from router.config.settings import ServerSettings
from router.errors import ModelNotAllowed, RouterError
from router.fleet.fleet import Fleet
from router.metrics import Metrics
from router.proxy.admit import Entry, Wanted, read
from router.proxy.exchange import Call, Exchange
from router.proxy.forward import Forwarder
from router.proxy.meter import Metering, Unmetered

_UNMETERED = Unmetered()


class Pipeline:
    """Takes one exchange from its head to its end.

    Args:
        closed: why nothing new is taken; None while it is.
        limits: the server's settings in force.
    """

    def __init__(
        self,
        door: Door,
        fleet: Fleet,
        metering: Metering,
        forwarder: Forwarder,
        metrics: Metrics,
        *,
        closed: Callable[[], RouterError | None],
        limits: Callable[[], ServerSettings],
    ) -> None:
        self._door = door
        self._fleet = fleet
        self._metering = metering
        self._forwarder = forwarder
        self._metrics = metrics
        self._closed = closed
        self._limits = limits

    async def serve(self, exchange: Exchange, entry: Entry) -> None:
        """Answer an inference request. Leaves with the answer written, or with the client gone."""
        identity: Identity | None = None
        try:
            identity = self._enter(exchange)
            body = exchange.body_at_once()
            if body is None:
                body = await exchange.read_body()
            content_type = exchange.header(b"content-type") or ""
            wanted = read(entry, body, content_type, self._fleet.catalog)
            if not identity.allows(wanted.model):
                raise ModelNotAllowed(
                    f"This key may not use the model `{wanted.model}`.", param="model"
                )
            meter = _UNMETERED
            if identity.organization is not None:
                meter = await self._metering.open(identity.organization, wanted)
            await self._forwarder.forward(exchange, self._call(exchange, identity, wanted, meter))
        except RouterError as error:
            self._metrics.rejections[error.code] += 1
            exchange.refuse(error, entry.path.dialect, self._rate_lines(identity))

    def _enter(self, exchange: Exchange) -> Identity:
        closed = self._closed()
        if closed is not None:
            raise closed
        return self._door.enter(
            exchange.client, exchange.header(b"authorization"), exchange.header(b"x-api-key")
        )

    def _call(
        self, exchange: Exchange, identity: Identity, wanted: Wanted, meter: Unmetered
    ) -> Call:
        return Call(
            wanted.path,
            wanted.model,
            exchange.request_id,
            wanted.with_changes(meter.changes),
            exchange.lines,
            self._limits(),
            exchange.started,
            monotonic(),
            meter,
            identity.organization or "",
            identity.priority,
        )

    def _rate_lines(self, identity: Identity | None) -> bytes:
        if identity is None or identity.organization is None:
            return b""
        return self._metering.rate_lines(identity.organization)
