"""The fleet: the one owner of services. Sources publish to it, requests lease from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from router.errors import ModelLoading, NoHealthyBackend, Overloaded
from router.fleet.catalog import LOADING_RETRY_AFTER_S, Catalog, build_catalog
from router.fleet.service import Health, Service
from router.log import get_logger
from router.metrics import Metrics
from router.model import ModelCard, ServiceSpec, ServiceState
from router.routing import Policy

_log = get_logger("router.fleet")
_SOURCE_RANK = {"yaml": 0}
UNHEALTHY_RETRY_AFTER_S = 10.0
FULL_RETRY_AFTER_S = 1.0


class Lease:
    """One slot of a service. Given back exactly once, however often `release` is called."""

    __slots__ = ("_fleet", "service")

    def __init__(self, fleet: Fleet, service: Service) -> None:
        self._fleet: Fleet | None = fleet
        self.service = service

    def release(self) -> None:
        """Give the slot back. Does not await; a second call does nothing."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet._give_back(self.service)  # noqa: SLF001 - a lease is a part of its fleet


class Fleet:
    """All services, their leases, and the catalog of models.

    Everything here is synchronous: to choose and to lease is one step that nothing can divide.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        policy: Policy[Service],
        aliases: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._policy = policy
        self._aliases = aliases
        self._clock = clock
        self._published: dict[str, dict[str, ServiceSpec]] = {}
        self._services: dict[str, Service] = {}
        self._draining: list[Service] = []
        self._turns: dict[str, int] = {}
        self._listeners: list[Callable[[], None]] = []
        self.catalog = Catalog()

    # -- what there is ---------------------------------------------------------------------

    @property
    def services(self) -> tuple[Service, ...]:
        """Those published and those that still drain."""
        return (*self._services.values(), *self._draining)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias -> model."""
        return self._aliases

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after services were added or removed."""
        self._listeners.append(listener)

    def publish(self, source: str, specs: Iterable[ServiceSpec]) -> None:
        """Replace everything that `source` has published so far by `specs`.

        What is new starts as `loading`; what is gone drains; what has a new address, key or set of
        models starts anew; a change of weight, limit or label is taken over in place. Where two
        sources use one name, `yaml` wins.
        """
        self._published[source] = {spec.name: spec for spec in specs}
        wanted = self._wanted()
        for name in [
            name for name, old in self._services.items() if _replaces(old, wanted.get(name))
        ]:
            self._remove(self._services.pop(name))
        for name, spec in wanted.items():
            service = self._services.get(name)
            if service is None:
                self._services[name] = Service(spec, self._metrics.service(name), self._clock())
                _log.info("service_added", service=name, url=spec.url, source=spec.source)
            else:
                service.spec, service.weight = spec, spec.weight
        self._changed()

    def configure(self, *, policy: Policy[Service], aliases: Mapping[str, str]) -> None:
        """Take over new routing settings for the calls that come."""
        self._policy = policy
        self._aliases = aliases
        self._rebuild()

    def _wanted(self) -> dict[str, ServiceSpec]:
        by_rank = sorted(self._published, key=lambda source: _SOURCE_RANK.get(source, 1))
        wanted: dict[str, ServiceSpec] = {}
        for source in by_rank:
            for name, spec in self._published[source].items():
                wanted.setdefault(name, spec)
        return wanted

    def _remove(self, service: Service) -> None:
        service.removed = True
        _log.info("service_removed", service=service.name, in_flight=service.in_flight)
        if service.in_flight:
            self._draining.append(service)

    def _changed(self) -> None:
        self._rebuild()
        for listener in self._listeners:
            listener()

    def _rebuild(self) -> None:
        self.catalog = build_catalog(self._services.values(), self._aliases)
        self._turns = {model: self._turns.get(model, 0) for model in self.catalog.members}

    # -- health ----------------------------------------------------------------------------

    def set_health(
        self, service: Service, health: Health, cards: Sequence[ModelCard] | None = None
    ) -> None:
        """Take over what a probe found; `cards` is the engine's model list, None when not read."""
        service.last_check = self._clock()
        if health.state is not service.health.state:
            _log.log(
                _LEVEL[health.state],
                "service_state",
                service=service.name,
                state=str(health.state),
                was=str(service.health.state),
                error=health.last_error,
            )
        service.health = health
        if cards is not None:
            service.cards = {card.id: card for card in cards}
            models = service.spec.models or tuple(service.cards)
            if models != service.models:
                service.models = models
                _log.info("models_learnt", service=service.name, models=list(models))
                self._rebuild()

    def context_length(self, model: str) -> int | None:
        """Longest context, in tokens, of the services that serve `model`; None: nobody told."""
        told = [
            card.max_model_len
            for service in self.catalog.members.get(model, ())
            if (card := service.cards.get(model)) is not None and card.max_model_len is not None
        ]
        return max(told, default=None)

    # -- leases ----------------------------------------------------------------------------

    def take(self, model: str, exclude: Collection[Service] = ()) -> Lease:
        """Choose a service for `model` (a full name, see `Catalog.resolve`) and lease a slot of it.

        Raises:
            NoHealthyBackend: no healthy service is left.
            ModelLoading: none is healthy, one is starting.
            Overloaded: all healthy ones are full.
        """
        members = self.catalog.members.get(model, ())
        free = [
            service
            for service in members
            if service.is_healthy and not service.is_full and service not in exclude
        ]
        if not free:
            raise _nobody(model, members, exclude)
        if len(free) == 1:
            chosen = free[0]
        else:
            turn = self._turns[model]
            self._turns[model] = turn + 1
            chosen = self._policy(free, turn)
        chosen.in_flight += 1
        return Lease(self, chosen)

    def _give_back(self, service: Service) -> None:
        service.in_flight -= 1
        if service.removed and not service.in_flight and service in self._draining:
            self._draining.remove(service)
            _log.info("service_drained", service=service.name)


_LEVEL = {
    ServiceState.HEALTHY: 20,
    ServiceState.LOADING: 20,
    ServiceState.DRAINING: 20,
    ServiceState.SLEEPING: 20,
    ServiceState.UNHEALTHY: 30,
    ServiceState.EJECTED: 30,
}


def _replaces(old: Service, new: ServiceSpec | None) -> bool:
    if new is None:
        return True
    spec = old.spec
    return (spec.url, spec.api_key, spec.models) != (new.url, new.api_key, new.models)


def _nobody(
    model: str, members: Sequence[Service], exclude: Collection[Service]
) -> NoHealthyBackend | ModelLoading | Overloaded:
    left = [service for service in members if service not in exclude]
    if any(service.is_healthy for service in left):
        return Overloaded(
            f"Every service for `{model}` is at its limit of concurrent requests.",
            retry_after_s=FULL_RETRY_AFTER_S,
        )
    if any(service.health.state is ServiceState.LOADING for service in left):
        return ModelLoading(
            f"What serves `{model}` is still starting.", retry_after_s=LOADING_RETRY_AFTER_S
        )
    return NoHealthyBackend(
        f"No healthy service for `{model}` right now.", retry_after_s=UNHEALTHY_RETRY_AFTER_S
    )
