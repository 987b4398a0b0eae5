"""The status pages: `/health*`, `/services`, `/stats`, `/metrics`. They change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from router.api.answer import Answer, Asking, json_answer
from router.exposition import CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE, asks_for_openmetrics
from router.fleet.fleet import Fleet
from router.fleet.prober import INSTANCE_HEADER
from router.fleet.service import Service
from router.metrics import Metrics


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the second; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Condition:
    """How the daemon is.

    Attributes:
        phase: `starting`, `running` or `draining`.
        generation: configurations that have run, this one included.
        last_reload_error: why the file as it is now does not run; None: it does.
    """

    phase: str
    generation: int
    last_reload_error: str | None


class StatusPages:
    """The pages, over the fleet and the metrics.

    Args:
        condition: of the daemon.
        organizations: rows for the admin's `/stats`.
        is_admin: whether a request carries the admin key.
        instance: tells this router from others, so that its prober knows it.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        condition: Callable[[], Condition],
        organizations: Callable[[], list[dict[str, Any]]],
        is_admin: Callable[[Asking], bool],
        *,
        instance: str,
    ) -> None:
        self._organizations = organizations
        self._is_admin = is_admin
        self._fleet = fleet
        self._metrics = metrics
        self._condition = condition
        self._started = time.monotonic()
        self._instance = ((INSTANCE_HEADER, instance),)

    def health(self, _asking: Asking) -> Answer:
        """`GET /health`: 200 while at least one service is healthy."""
        services = [service for service in self._fleet.services if not service.removed]
        healthy = [service for service in services if service.is_healthy]
        backends: dict[str, list[str]] = {service.spec.group: [] for service in services}
        for service in healthy:
            backends[service.spec.group].append(service.spec.url)
        condition = self._condition()
        status = "unhealthy"
        if healthy:
            status = "healthy" if len(healthy) == len(services) else "degraded"
        page = {
            "status": status,
            "router": "draining" if condition.phase == "draining" else "running",
            "healthy_services": f"{len(healthy)}/{len(services)}",
            "timestamp": timestamp(time.time()),
            "backends": backends,
            "generation": condition.generation,
            "last_reload_error": condition.last_reload_error,
        }
        return replace(json_answer(page, 200 if healthy else 503), headers=self._instance)

    def live(self, _asking: Asking) -> Answer:
        """`GET /health/live`: the process serves."""
        return json_answer({"status": "live"})

    def ready(self, _asking: Asking) -> Answer:
        """`GET /health/ready`: 503 while starting or draining."""
        phase = self._condition().phase
        return json_answer({"status": phase}, 200 if phase == "running" else 503)

    def services(self, _asking: Asking) -> Answer:
        """`GET /services`: every service and what is known of it."""
        rows = [_service_row(service) for service in self._fleet.services]
        return json_answer({"services": rows, "total": len(rows)})

    def stats(self, asking: Asking) -> Answer:
        """`GET /stats`: counts since the start, means over the last minute."""
        services = self._fleet.services
        queued = self._fleet.queued
        self._metrics.fold()
        page = {
            "total_services": len(services),
            "healthy_services": sum(service.is_healthy for service in services),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "services": [_stats_row(service, queued) for service in services],
        }
        if self._is_admin(asking):
            page["organizations"] = self._organizations()
        return json_answer(page)

    def metrics(self, asking: Asking) -> Answer:
        """`GET /metrics`: Prometheus text, OpenMetrics when asked for."""
        openmetrics = asks_for_openmetrics(asking.header(b"accept") or "")
        text = self._metrics.text(openmetrics=openmetrics)
        kind = OPENMETRICS_CONTENT_TYPE if openmetrics else CONTENT_TYPE
        return Answer(text.encode(), content_type=kind)


def _service_row(service: Service) -> dict[str, Any]:
    spec = service.spec
    return {
        "name": service.name,
        "url": spec.url,
        "healthy": service.is_healthy,
        "state": str(service.state(time.monotonic())),
        "since": timestamp(service.since),
        "models": list(service.models),
        "group": spec.group,
        "source": spec.source,
        "weight": spec.weight,
        "in_flight": service.in_flight,
        "max_concurrency": spec.max_concurrency,
        "last_check": timestamp(service.last_check),
        "last_error": service.last_error,
        "gpu": spec.gpu,
    }


def _stats_row(service: Service, queued: Mapping[str, int]) -> dict[str, Any]:
    cells = service.cells
    return {
        "name": service.name,
        "healthy": service.is_healthy,
        "request_count": cells.request_count,
        "error_count": cells.error_count,
        "in_flight": service.in_flight,
        "queued": sum(queued.get(model, 0) for model in service.models),
        "prompt_tokens": cells.prompt_tokens,
        "completion_tokens": cells.completion_tokens,
        **cells.recent.means(time.monotonic()),
    }
