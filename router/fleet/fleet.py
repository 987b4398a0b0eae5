"""The fleet: the one owner of services. Sources publish to it, requests lease from it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic

from router.config.settings import EjectionSettings
from router.errors import RouterError
from router.fleet.breaker import (
    CLOSED,
    after_failure,
    after_nothing,
    after_success,
    after_take,
    paused,
)
from router.fleet.catalog import Catalog, Contexts, build_catalog
from router.fleet.lease import Lease
from router.fleet.load import EngineLoad, next_progress
from router.fleet.published import Published, replaces
from router.fleet.queues import Queues
from router.fleet.refusal import nobody
from router.fleet.service import Health, Service
from router.fleet.states import StateListener, States
from router.fleet.waiting import Ticket, WaitingRoom
from router.log import get_logger
from router.metrics import Metrics
from router.model import ModelCard, ServiceSpec, ServiceState
from router.routing import Policy

_log = get_logger("router.fleet")


class Fleet:
    """All services, their leases, who waits for one, and the catalog of models.

    To choose and to lease is one synchronous step that nothing can divide.

    Args:
        metrics: keeps the cells of services.
        policy: chooses among those that can take a call.
        aliases: alias -> model.
        routed: models of named routes.
        ejection: when requests that fail eject a service.
        clock: seconds since the epoch, for what people are shown.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        policy: Policy[Service],
        aliases: Mapping[str, str],
        ejection: EjectionSettings,
        routed: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._policy = policy
        self._aliases = aliases
        self._routed = tuple(routed)
        self._ejection = ejection
        self._clock = clock
        self._states = States(clock)
        self._published = Published()
        self._services: dict[str, Service] = {}
        self._draining: list[Service] = []
        self._turns: dict[str, int] = {}
        self.contexts = Contexts(
            lambda model: self.catalog.longest_context(model)  # noqa: PLW0108 - of the present one
        )
        self._queues = Queues(self._take, self._members)
        # Looked at with every request, so without a call; the queues alone change it.
        self._rooms: Mapping[str, WaitingRoom] = self._queues.rooms
        self._change_listeners: list[Callable[[], None]] = []
        self._down_listeners: list[Callable[[Service], None]] = []
        self.catalog = Catalog()

    # -- what there is -------------------------------------------------------------------------

    @property
    def services(self) -> tuple[Service, ...]:
        """Those published and those that still drain."""
        return (*self._services.values(), *self._draining)

    @property
    def queued(self) -> dict[str, int]:
        """Model -> requests that wait for a slot; models without any are left out."""
        return {model: len(room) for model, room in self._rooms.items()}

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after services were added or removed."""
        self._change_listeners.append(listener)

    def on_down(self, listener: Callable[[Service], None]) -> None:
        """Have `listener` called when a service that was usable no longer is."""
        self._down_listeners.append(listener)

    def on_state(self, listener: StateListener) -> None:
        """Have `listener` called when a service's state, as people see it, has changed."""
        self._states.on_change(listener)

    def publish(
        self, source: str, specs: Iterable[ServiceSpec], *, dead: Collection[str] = ()
    ) -> None:
        """Replace everything that `source` has published so far by `specs`.

        What is new starts as `loading`; what is gone drains; what has a new address, key or set of
        models starts anew; a change of weight, limit or label is taken over in place. Where two
        sources use one name, `yaml` wins, then `files`. What is gone and named in `dead` does not
        answer any more: calls that wait there for a first byte move.
        """
        self._published.replace(source, specs)
        wanted = self._published.wanted()
        gone = [old for old in self._services.values() if replaces(old.spec, wanted.get(old.name))]
        lost = [service for service in gone if service.name in dead and service.usable]
        for service in gone:
            self._remove(service)
        for name, spec in wanted.items():
            if name in self._services:
                self._services[name].apply(spec)
            else:
                self._services[name] = Service(spec, self._metrics.service(name), self._clock())
                _log.info("service_added", service=name, url=spec.url, source=spec.source)
        self._metrics.retain({each.name for each in self.services})
        self._rebuild()
        for listener in self._change_listeners:
            listener()
        for service in lost:
            self._tell_down(service)
        self._queues.serve()

    def configure(
        self,
        *,
        policy: Policy[Service],
        aliases: Mapping[str, str],
        ejection: EjectionSettings,
        routed: Iterable[str] = (),
    ) -> None:
        """Take over new settings for the calls that come."""
        self._routed = tuple(routed)
        self._policy = policy
        self._aliases = aliases
        self._ejection = ejection
        self._rebuild()

    def _remove(self, service: Service) -> None:
        del self._services[service.name]
        service.removed = True
        service.usable = False
        _log.info("service_removed", service=service.name, in_flight=service.in_flight)
        if service.in_flight:
            self._draining.append(service)

    def _rebuild(self) -> None:
        self.catalog = build_catalog(self._services.values(), self._aliases, self._routed)
        self.contexts.clear()
        self._turns = {model: self._turns.get(model, 0) for model in self.catalog.members}

    # -- what probes and readings tell ---------------------------------------------------------

    def set_health(
        self, service: Service, health: Health, cards: Sequence[ModelCard] | None = None
    ) -> None:
        """Take over what a probe found; `cards` is the engine's model list, None when not read."""
        service.last_check = self._clock()
        mismatch_was = service.health.mismatch
        if _is_back(service.health, health):
            service.forget_load()
        service.health = health
        if not health.failures:
            service.failing_since = 0.0
        elif not service.failing_since:
            service.failing_since = monotonic()
        if health.last_error is not None:
            service.last_error = health.last_error
        elif health.mismatch != mismatch_was:
            service.last_error = health.mismatch
            if health.mismatch is not None:
                _log.warning("models_differ", service=service.name, error=health.mismatch)
        if cards is not None:
            service.cards = {card.id: card for card in cards}
            self.contexts.clear()
            models = service.spec.models or tuple(service.cards)
            if models != service.models:
                service.models = models
                _log.info("models_learnt", service=service.name, models=list(models))
                self._rebuild()
        self._state_changed(service)

    def set_load(self, service: Service, load: EngineLoad | None, hung_after_s: float) -> None:
        """Take over what an engine told of itself: asleep, and getting on with its work or not.

        `load` is None where it answers and tells nothing of it: no verdict outlives its evidence.
        """
        if load is None:
            service.forget_load()
        else:
            _judge_load(service, load, hung_after_s)
        self._state_changed(service)

    def _state_changed(self, service: Service) -> None:
        was_usable = service.usable
        well = service.health.state is ServiceState.HEALTHY
        service.usable = well and not (service.hung or service.asleep or service.removed)
        if service.usable is not was_usable:
            self.contexts.clear()
        if service.usable and not was_usable:
            service.last_error = service.health.mismatch
            self._queues.serve()
        elif was_usable and not service.usable:
            self._tell_down(service)
            self._queues.serve()
        self._states.show(service, monotonic())

    def _tell_down(self, service: Service) -> None:
        for listener in self._down_listeners:
            listener(service)

    # -- what requests tell --------------------------------------------------------------------

    def note_success(self, service: Service) -> None:
        """An answer began well."""
        if service.breaker is not CLOSED:
            service.breaker = after_success(service.breaker)
            self._states.show(service, monotonic())
            self._queues.serve()

    def note_failure(self, service: Service, reason: str, wait_s: float | None) -> None:
        """A request failed before its first byte."""
        service.last_error = reason
        settings = self._ejection
        service.breaker = after_failure(
            service.breaker,
            monotonic(),
            threshold=settings.consecutive_failures,
            base_s=settings.base_s,
            max_s=settings.max_s,
            jitter=random.uniform(-1, 1),  # noqa: S311
        )
        if wait_s is not None:
            service.breaker = paused(service.breaker, monotonic(), wait_s)
        self._states.show(service, monotonic())

    def review(self, now: float) -> None:
        """Look at what time alone changes: ends of ejections, ends of waits. For the sweep."""
        for service in self._services.values():
            if service.shown is ServiceState.EJECTED:
                self._states.show(service, monotonic())
        self._queues.refuse_late(now)
        self._queues.serve()

    # -- leases --------------------------------------------------------------------------------

    def take(self, model: str, exclude: Collection[Service] = ()) -> Lease:
        """Choose a service for `model` (a full name, see `Catalog.resolve`) and lease a slot of it.

        Raises:
            NoHealthyBackend: no healthy service is left.
            ModelLoading: none is healthy, one is starting.
            Overloaded: all healthy ones are full, or others wait already.
        """
        if model in self._rooms:
            raise self._queues.overloaded(model, "Other requests wait for a slot already.")
        return self._take(model, exclude)

    def eligible(self, model: str) -> tuple[list[Service], int]:
        """(those that `take` would choose from now, the policy's turn); nothing is leased.

        Raises:
            RouterError: as `take`.
        """
        if model in self._rooms:
            raise self._queues.overloaded(model, "Other requests wait for a slot already.")
        return self._eligible(model, self._members(model), ()), self._turns.get(model, 0)

    def able(self, model: str) -> list[Service]:
        """Those that are well, full or not, the least busy first: for what needs no slot.

        Raises:
            NoHealthyBackend, ModelLoading: there is none.
        """
        members = self._members(model)
        able = [each for each in members if each.usable]
        if not able:
            raise nobody(model, members, ())
        now = monotonic()
        return sorted(able, key=lambda each: (not each.breaker.admits(now), each.in_flight))

    def _take(self, model: str, exclude: Collection[Service]) -> Lease:
        members = self.catalog.members.get(model, ())
        free = [
            each
            for each in members
            if each.usable and each.breaker is CLOSED and each.in_flight < each.slots
        ]
        if not free or exclude or len(free) < len(members):
            free = self._eligible(model, members, exclude)
        if len(free) == 1:
            chosen = free[0]
        else:
            turn = self._turns[model]
            self._turns[model] = turn + 1
            chosen = self._policy(free, turn)
        breaker = chosen.breaker
        trial = breaker is not CLOSED and not breaker.is_closed and breaker.admits(monotonic())
        if trial:
            chosen.breaker = after_take(chosen.breaker)
        chosen.in_flight += 1
        return Lease(chosen, trial, self)

    def _eligible(
        self, model: str, members: Sequence[Service], exclude: Collection[Service]
    ) -> list[Service]:
        """Those that may take a call, where not simply all may."""
        now = monotonic()
        able = [each for each in members if each.usable and each not in exclude]
        # The last ones standing are tried although requests to them have failed.
        admitted = [each for each in able if each.breaker.admits(now)] or able
        free = [each for each in admitted if not each.is_full]
        if free:
            return free
        if able:
            raise self._queues.overloaded(model, "Every service is at its limit of requests.")
        raise nobody(model, members, exclude)

    async def wait(self, model: str, ticket: Ticket, max_queue: int) -> Lease:
        """Wait for a slot in the model's queue.

        Raises:
            Overloaded: the queue is full, or the ticket's deadline has come.
            RouterError: nothing is left that could serve the model.
        """
        return await self._queues.wait(model, ticket, max_queue)

    def refuse_waiting(self, why: Callable[[], RouterError]) -> None:
        """End every wait for a slot with an error made by `why`."""
        self._queues.refuse_all(why)

    def give_back(self, service: Service, *, untold_trial: bool) -> None:
        """Take a slot back; for leases alone."""
        service.in_flight -= 1
        if untold_trial:
            service.breaker = after_nothing(service.breaker)
        if service.removed and not service.in_flight and service in self._draining:
            self._draining.remove(service)
            _log.info("service_drained", service=service.name)
        if self._rooms:
            self._queues.serve()

    def _members(self, model: str) -> Sequence[Service]:
        return self.catalog.members.get(model, ())


def _is_back(was: Health, health: Health) -> bool:
    """It is well after it was not: perhaps another process, of which nothing was read yet."""
    return health.state is ServiceState.HEALTHY and was.state is not ServiceState.HEALTHY


def _judge_load(service: Service, load: EngineLoad, hung_after_s: float) -> None:
    now = monotonic()
    service.load = load
    service.asleep = not load.awake
    service.progress = next_progress(service.progress, load, now)
    still_s = now - max(service.progress.since, service.heard)
    service.hung = load.running > 0 and still_s > hung_after_s
    if service.hung:
        service.last_error = f"hung: {load.running} running, no token for {still_s:.0f} s"
