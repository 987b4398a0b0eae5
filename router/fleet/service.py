"""A service at run time: its spec, its health, its load. Owned and changed by the fleet alone."""

from __future__ import annotations

from dataclasses import dataclass

from router.metrics import ServiceCells
from router.model import ModelCard, ServiceSpec, ServiceState, Usage


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a service's health.

    Attributes:
        state: as `/services` shows it.
        failures: failed probes in a row.
        successes: good probes in a row.
        ever_healthy: it has answered since it was published.
        last_error: of the latest failed probe or request; None when none has failed since.
        since: when `state` began, seconds since the epoch.
    """

    state: ServiceState = ServiceState.LOADING
    failures: int = 0
    successes: int = 0
    ever_healthy: bool = False
    last_error: str | None = None
    since: float = 0.0


class RollingMinute:
    """Sums over the last minute, in six slots of ten seconds."""

    __slots__ = ("_slots", "_stamps")
    _SLOT_S = 10.0
    _COUNT = 6

    def __init__(self) -> None:
        self._slots = [[0.0] * 6 for _ in range(self._COUNT)]
        self._stamps = [-1] * self._COUNT

    def add(self, now: float, duration_s: float, ttft_s: float | None, tokens: int) -> None:
        """Count one finished exchange."""
        stamp = int(now / self._SLOT_S)
        place = stamp % self._COUNT
        slot = self._slots[place]
        if self._stamps[place] != stamp:
            self._stamps[place] = stamp
            slot[:] = [0.0] * 6
        slot[0] += 1
        slot[1] += duration_s
        if ttft_s is not None:
            slot[2] += 1
            slot[3] += ttft_s
        slot[4] += tokens

    def means(self, now: float) -> dict[str, float]:
        """`response_time` and `ttft` in seconds (0 without requests), `tokens_per_second`."""
        oldest = int(now / self._SLOT_S) - self._COUNT + 1
        live = [s for s, stamp in zip(self._slots, self._stamps, strict=True) if stamp >= oldest]
        count, duration, first_count, first, tokens = (
            sum(slot[place] for slot in live) for place in range(5)
        )
        return {
            "response_time": duration / count if count else 0.0,
            "ttft": first / first_count if first_count else 0.0,
            "tokens_per_second": tokens / (self._SLOT_S * self._COUNT),
        }


class Service:
    """One engine in the fleet.

    Attributes:
        spec: as published.
        cells: its metrics.
        health: the latest knowledge.
        in_flight: leases out now.
        models: names it serves, configured or learnt.
        cards: rows of its `/v1/models` by name.
        last_check: end of the latest probe, seconds since the epoch; None before the first.
        removed: no longer published; ends when its last lease is back.
    """

    __slots__ = (
        "cards", "cells", "error_count", "health", "in_flight", "last_check", "models",
        "recent", "removed", "request_count", "spec", "usage", "weight",
    )  # fmt: skip

    def __init__(self, spec: ServiceSpec, cells: ServiceCells, now: float) -> None:
        self.spec = spec
        self.cells = cells
        self.health = Health(since=now)
        self.in_flight = 0
        self.weight = spec.weight
        self.models: tuple[str, ...] = spec.models or ()
        self.cards: dict[str, ModelCard] = {}
        self.last_check: float | None = None
        self.removed = False
        self.request_count = 0
        self.error_count = 0
        self.usage = Usage()
        self.recent = RollingMinute()

    def __repr__(self) -> str:
        return f"<Service {self.name} {self.state} in_flight={self.in_flight}>"

    @property
    def name(self) -> str:
        """Its name, unique in the fleet."""
        return self.spec.name

    @property
    def state(self) -> ServiceState:
        """As `/services` shows it."""
        return ServiceState.DRAINING if self.removed else self.health.state

    @property
    def is_healthy(self) -> bool:
        """It may be given requests."""
        return self.health.state is ServiceState.HEALTHY and not self.removed

    @property
    def is_full(self) -> bool:
        """Every slot of `max_concurrency` is taken."""
        limit = self.spec.max_concurrency
        return limit is not None and self.in_flight >= limit
