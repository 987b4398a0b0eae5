"""The router at one moment, as the page shows it, and what has changed since another moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import msgspec

from router.api.pages import Condition
from router.dashboard.history import History, Reading
from router.fleet.fleet import Fleet
from router.fleet.load import EngineLoad
from router.fleet.service import Service
from router.ledger import Ledger, WindowUsage
from router.model import ServiceState

MAX_ORGANIZATIONS = 200
PRIVATE = "organizations"
"""The section that is for the admin alone."""

Section = dict[str, bytes]
"""Key -> row, as JSON."""
Picture = dict[str, Section]
"""Name of a section -> its rows."""

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom the dashboard asks.

    Attributes:
        condition: of the daemon.
        in_flight: requests that are being answered, whoever holds them.
        version: of the router.
    """

    fleet: Fleet
    ledger: Ledger
    condition: Callable[[], Condition]
    in_flight: Callable[[], int]
    version: str


class Painter:
    """Makes pictures from what the owners tell."""

    def __init__(self, sources: Sources, history: History) -> None:
        self._sources = sources
        self._history = history
        self._began = monotonic()

    def picture(self) -> Picture:
        """The router now."""
        return {
            "router": {"": _encode(self._router())},
            "services": dict(self._services()),
            "models": dict(self._models()),
            PRIVATE: dict(self._organizations()),
        }

    def readings(self) -> dict[str, Reading]:
        """What the history keeps of every service that is published."""
        now = monotonic()
        services = self._sources.fleet.services
        return {each.name: reading(each, now) for each in services if not each.removed}

    def _router(self) -> dict[str, Any]:
        condition = self._sources.condition()
        organizations = len(self._sources.ledger.organizations())
        return {
            "phase": condition.phase,
            "version": self._sources.version,
            "started": self._started(),
            "generation": condition.generation,
            "reload_error": condition.last_reload_error,
            "in_flight": self._sources.in_flight(),
            "organizations_untold": max(0, organizations - MAX_ORGANIZATIONS),
        }

    def _started(self) -> int:
        """When the daemon began, seconds since the epoch: by the clock as it is set now.

        The page takes it from the time of each message, so what is up does not jump with a clock
        that is set. Whole seconds gone, so that it is the same from one picture to the next, and
        never ahead of them.
        """
        return int(time.time() - (monotonic() - self._began))

    def _services(self) -> Iterator[tuple[str, bytes]]:
        queued = self._sources.fleet.queued
        names: set[str] = set()
        for service in self._sources.fleet.services:
            key = service.name
            while key in names:  # one that drains beside its successor
                key += " (old)"
            names.add(key)
            yield key, _encode(self._service(service, queued))

    def _service(self, service: Service, queued: Mapping[str, int]) -> dict[str, Any]:
        spec, load, cells = service.spec, _present_load(service), service.cells
        trail = None if service.removed else self._history.of(service.name)
        return {
            "name": service.name,
            "group": spec.group,
            "gpu": spec.gpu,
            "source": spec.source,
            "url": spec.url,
            "models": list(service.models),
            "state": str(service.state(monotonic())),
            "hung": service.hung,
            "since": round(service.since),
            "last_error": service.last_error,
            "in_flight": service.in_flight,
            "max_concurrency": spec.max_concurrency,
            "queued": sum(queued.get(model, 0) for model in service.models),
            "engine_running": None if load is None else load.running,
            "engine_waiting": None if load is None else load.waiting,
            "kv_cache": None if load is None else round(load.kv_cache_usage, 4),
            "tokens_per_s": None if trail is None else _rounded(trail.tokens_per_s, 1),
            "ttft_p50": None if trail is None else _rounded(trail.ttft_p50, 4),
            "ttft_p95": None if trail is None else _rounded(trail.ttft_p95, 4),
            "requests": cells.request_count,
            "errors": cells.error_count,
        }

    def _models(self) -> Iterator[tuple[str, bytes]]:
        catalog, queued = self._sources.fleet.catalog, self._sources.fleet.queued
        aliases: dict[str, list[str]] = {}
        for alias, model in catalog.aliases.items():
            aliases.setdefault(model, []).append(alias)
        for model, members in catalog.members.items():
            row = {
                "services": len(members),
                "healthy": sum(member.is_healthy for member in members),
                "queued": queued.get(model, 0),
                "aliases": aliases.get(model, []),
            }
            yield model, _encode(row)

    def _organizations(self) -> Iterator[tuple[str, bytes]]:
        now, ledger = time.time(), self._sources.ledger
        for name in ledger.organizations()[:MAX_ORGANIZATIONS]:
            yield name, _encode([_window(window) for window in ledger.windows(name, now)])


def reading(service: Service, now: float) -> Reading:
    """A service as the history keeps it; `now` in monotonic seconds."""
    load, present, cells = service.load, _present_load(service), service.cells
    first = cells.time_to_first_token
    # The engine's own counter moves with each token; the router's, when an answer has ended.
    tokens = cells.completion_tokens if load is None else load.generated_tokens
    return Reading(
        tokens=tokens,
        tokens_at=now if load is None else service.progress.since,
        in_flight=service.in_flight,
        kv_cache=None if present is None else present.kv_cache_usage,
        first_tokens=first.counts,
        bounds=first.bounds,
    )


def _present_load(service: Service) -> EngineLoad | None:
    """What an engine tells of itself; None where it does not, or no longer answers."""
    return service.load if service.health.state is ServiceState.HEALTHY else None


def difference(old: Picture, new: Picture) -> dict[str, dict[str, msgspec.Raw | None]]:
    """Section -> key -> the row that is new or another, None for one that is gone."""
    changes: dict[str, dict[str, msgspec.Raw | None]] = {}
    for name, rows in new.items():
        before = old.get(name, {})
        changed: dict[str, msgspec.Raw | None] = {
            key: msgspec.Raw(row) for key, row in rows.items() if before.get(key) != row
        }
        changed.update((key, None) for key in before if key not in rows)
        if changed:
            changes[name] = changed
    return changes


def told(points: Iterable[float | None], digits: int) -> list[float | None]:
    """Points of a sparkline, short enough to be sent."""
    return [_rounded(point, digits) for point in points]


def _window(window: WindowUsage) -> dict[str, Any]:
    return {
        "kind": str(window.kind),
        "period": str(window.period),
        "limit": window.limit,
        "used": window.used,
        "reserved": window.reserved,
        "resets_at": window.resets_at,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
