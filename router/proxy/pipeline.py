"""The whole way of a request, on one screen; whatever goes wrong on it is answered here."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.access.door import Door
from router.access.identity import Identity
from router.errors import Draining, ModelNotAllowed, RouterError
from router.fleet.fleet import Fleet
from router.metrics import Metrics
from router.proxy.admit import Entry, Wanted, read
from router.proxy.exchange import Call, Exchange
from router.proxy.forward import Forwarder
from router.proxy.headers import to_upstream
from router.proxy.meter import Metering, Unmetered

_UNMETERED = Unmetered()


class Pipeline:
    """Takes one exchange from its head to its end.

    Args:
        draining: seconds a client should wait before it tries again; None while requests are taken.
    """

    def __init__(
        self,
        door: Door,
        fleet: Fleet,
        metering: Metering,
        forwarder: Forwarder,
        metrics: Metrics,
        *,
        draining: Callable[[], float | None],
    ) -> None:
        self._door = door
        self._fleet = fleet
        self._metering = metering
        self._forwarder = forwarder
        self._metrics = metrics
        self._draining = draining

    async def serve(self, exchange: Exchange, entry: Entry) -> None:
        """Answer an inference request. Leaves with the answer written, or with the client gone."""
        organization: str | None = None
        try:
            identity = self._enter(exchange)
            organization = identity.organization
            body = await exchange.read_body()
            wanted = read(entry, body, exchange.content_type, self._fleet.catalog)
            _check_scope(identity, wanted)
            meter = _UNMETERED
            if organization is not None:
                meter = await self._metering.open(organization, wanted)
            call = _call(exchange, wanted, meter)
            try:
                await self._forwarder.forward(exchange, call)
            finally:
                meter.close(call.answered)
        except RouterError as error:
            self._metrics.rejections[error.code] += 1
            lines = self._metering.rate_lines(organization) if organization is not None else b""
            exchange.refuse(error, entry.path.dialect, lines)

    def _enter(self, exchange: Exchange) -> Identity:
        retry_after_s = self._draining()
        if retry_after_s is not None:
            raise Draining("The router is shutting down.", retry_after_s=retry_after_s)
        return self._door.enter(
            exchange.client, exchange.header("authorization"), exchange.header("x-api-key")
        )


def _check_scope(identity: Identity, wanted: Wanted) -> None:
    if not identity.allows(wanted.model):
        raise ModelNotAllowed(f"This key may not use the model `{wanted.model}`.", param="model")


def _call(exchange: Exchange, wanted: Wanted, meter: Unmetered) -> Call:
    return Call(
        path=wanted.path,
        model=wanted.model,
        request_id=exchange.request_id,
        body=wanted.with_changes(meter.changes),
        lines=to_upstream(exchange.headers),
        started=exchange.started,
        admitted=monotonic(),
        meter=meter,
    )
