"""A service at run time: its spec, its health, its load. The fleet owns it and changes it."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from router.fleet.breaker import CLOSED
from router.fleet.load import EngineLoad, Progress
from router.metrics import ServiceCells
from router.model import ModelCard, ServiceSpec, ServiceState

_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a service's health.

    Attributes:
        state: as `/services` shows it.
        failures: failed probes in a row.
        successes: good probes in a row.
        ever_healthy: it has answered since it was published.
        last_error: of the latest failed probe; None when none has failed since.
        mismatch: how the models it listed last differ from those configured; None: not at all.
    """

    state: ServiceState = ServiceState.LOADING
    failures: int = 0
    successes: int = 0
    ever_healthy: bool = False
    last_error: str | None = None
    mismatch: str | None = None


class Service:
    """One engine in the fleet.

    Attributes:
        spec: as published.
        cells: its metrics.
        health: what probes found.
        breaker: what requests found.
        load: what it told of itself last; None where it does not.
        progress: whether it gets on with its work.
        hung: it has work and makes no token.
        asleep: its memory is off the GPU.
        usable: it may be given requests, as far as probes and its own metrics tell.
        heard: when it last sent a byte of an answer, monotonic seconds.
        failing_since: first failed probe of those in a row, monotonic seconds; 0.0 without any.
        in_flight: leases out now.
        label: its name, for headers.
        models: names it serves, configured or learnt.
        cards: rows of its `/v1/models` by name.
        last_check: end of the latest probe, seconds since the epoch; None before the first.
        slots: requests it may hold at once.
        since: when its present state began, seconds since the epoch.
        removed: no longer published; ends when its last lease is back.
    """

    __slots__ = (
        "asleep", "breaker", "cards", "cells", "failing_since", "health", "heard", "hung",
        "in_flight", "label", "last_check", "last_error", "load", "models", "progress", "removed",
        "shown", "since", "slots", "spec", "usable", "weight",
    )  # fmt: skip

    def __init__(self, spec: ServiceSpec, cells: ServiceCells, now: float) -> None:
        self.apply(spec)
        self.cells = cells
        self.label = spec.name.encode()
        self.models: tuple[str, ...] = spec.models or ()
        self.cards: dict[str, ModelCard] = {}
        self.health = Health()
        self.breaker = CLOSED
        self.load: EngineLoad | None
        self.progress: Progress
        self.hung: bool
        self.asleep: bool
        self.forget_load()
        self.removed = self.usable = False
        self.heard = self.failing_since = 0.0
        self.in_flight = 0
        self.last_check: float | None = None
        self.last_error: str | None = None
        self.shown = ServiceState.LOADING
        self.since = now

    def apply(self, spec: ServiceSpec) -> None:
        """Take over a spec that differs in weight, limit or labels alone."""
        self.spec = spec
        self.weight = spec.weight
        limit = spec.max_concurrency
        self.slots = _UNLIMITED if limit is None else limit

    def forget_load(self) -> None:
        """Nothing is known any more of what it told of itself."""
        self.load = None
        self.progress = Progress()
        self.hung = self.asleep = False

    def __repr__(self) -> str:
        return f"<Service {self.name} {self.state(monotonic())} in_flight={self.in_flight}>"

    @property
    def name(self) -> str:
        """Its name, unique in the fleet."""
        return self.spec.name

    def state(self, now: float) -> ServiceState:
        """As `/services` shows it; `now` in monotonic seconds."""
        if self.removed:
            return ServiceState.DRAINING
        if self.asleep:
            return ServiceState.SLEEPING
        if self.hung:
            return ServiceState.UNHEALTHY
        if self.health.state is ServiceState.HEALTHY and now < self.breaker.until:
            return ServiceState.EJECTED
        return self.health.state

    def fault_began(self, now: float) -> float:
        """When the first sign came of what is wrong with it now; all in monotonic seconds."""
        signs = [self.failing_since or now]
        if self.breaker.failures:
            signs.append(self.breaker.since)
        if self.hung:
            signs.append(max(self.progress.since, self.heard))
        return min(signs)

    @property
    def is_healthy(self) -> bool:
        """It may be given requests, and they do not say otherwise."""
        return self.usable and monotonic() >= self.breaker.until

    @property
    def is_full(self) -> bool:
        """Every slot is taken."""
        return self.in_flight >= self.slots
