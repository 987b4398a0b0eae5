"""The whole way of a request, on one screen; whatever goes wrong on it is answered here."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.access.door import Door
from router.access.identity import Identity
from router.config.settings import ServerSettings
from router.errors import ModelNotAllowed, RouterError
from router.fleet.fleet import Fleet
from router.proxy.admit import Entry, Wanted, read
from router.proxy.exchange import Call, Exchange
from router.proxy.forward import Forwarder
from router.proxy.headers import trace_of
from router.proxy.meter import Metering, Unmetered
from router.proxy.quota_notices import QuotaNotices

_UNMETERED = Unmetered()


class Pipeline:
    """Takes one exchange from its head to its end: enter, read, admit, forward.

    Args:
        notices: told of every refusal of an organization's request.
        closed: why nothing new is taken; None while it is.
        limits: the server's settings in force.
    """

    def __init__(
        self,
        door: Door,
        fleet: Fleet,
        metering: Metering,
        forwarder: Forwarder,
        *,
        notices: QuotaNotices,
        closed: Callable[[], RouterError | None],
        limits: Callable[[], ServerSettings],
    ) -> None:
        self._door = door
        self._fleet = fleet
        self._metering = metering
        self._forwarder = forwarder
        self._notices = notices
        self._closed = closed
        self._limits = limits

    def enter(self, exchange: Exchange) -> Identity:
        """Who asks, as soon as the head is there: before a body is taken in.

        Raises:
            RouterError: it goes no further.
        """
        closed = self._closed()
        if closed is not None:
            raise closed
        return self._door.enter(
            exchange.client,
            exchange.header(b"authorization"),
            exchange.header(b"x-api-key"),
            exchange.badge,
        )

    def serve(self, exchange: Exchange, entry: Entry, identity: Identity) -> None:
        """Answer a whole inference request; what must wait goes on in a task of the exchange."""
        organization = identity.organization
        try:
            wanted = read(entry, exchange, self._fleet.catalog)
            exchange.model = wanted.model
            if not identity.allows(wanted.model):
                raise ModelNotAllowed(
                    f"This key may not use the model `{wanted.model}`.", param="model"
                )
            if organization is None:
                self._forward(exchange, identity, wanted, _UNMETERED)
                return
            meter = self._metering.open(organization, wanted)
            if meter is not None:
                self._forward(exchange, identity, wanted, meter)
                return
        except RouterError as error:
            self.refuse(exchange, error, organization)
            return
        exchange.spawn(self._serve_counted(exchange, identity, wanted))

    async def _serve_counted(self, exchange: Exchange, identity: Identity, wanted: Wanted) -> None:
        """Near the end of a quota: with the engine's own count of the prompt."""
        organization = identity.organization or ""
        try:
            meter = await self._metering.open_counted(organization, wanted)
            self._forward(exchange, identity, wanted, meter)
        except RouterError as error:
            self.refuse(exchange, error, organization)

    def _forward(
        self, exchange: Exchange, identity: Identity, wanted: Wanted, meter: Unmetered
    ) -> None:
        try:
            body = wanted.with_changes(meter.changes)
        except BaseException:  # a fault, too, gives the reservation back
            meter.close(None)
            raise
        exchange.forget_body()  # or a changed one would lie twice in memory
        call = Call(
            wanted.path,
            wanted.model,
            exchange.request_id,
            body,
            exchange.lines,
            self._limits(),
            exchange.started,
            monotonic(),
            meter,
            identity.organization or "",
            identity.priority,
            identity.key_id,
            trace_of(exchange.noted.get(b"traceparent")),
        )
        self._forwarder.forward(exchange, call, self.refuse)

    def rate_lines(self, exchange: Exchange, identity: Identity | None) -> bytes:
        """The `x-ratelimit-*` lines of a refusal; `identity` is None where nobody was let in."""
        if identity is None:
            identity = self._door.known(
                exchange.header(b"authorization"), exchange.header(b"x-api-key")
            )
        if identity is None or identity.organization is None:
            return b""
        return self._metering.rate_lines(identity.organization)

    def refuse(self, exchange: Exchange, error: RouterError, organization: str | None) -> None:
        """Answer with an error of the router's own."""
        if organization:
            exchange.rate_lines = self._metering.rate_lines(organization)
            self._notices.note(organization, error)
        exchange.refuse(error)
