"""What is true at this moment, for `/metrics`: read when scraped, kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from router.fleet.fleet import Fleet
from router.metrics import gauge
from router.model import ServiceState


def fleet_gauges(fleet: Fleet) -> Iterator[Metric]:
    """State and load of every service."""
    services = fleet.services
    yield gauge(
        "router_service_healthy",
        "1 while the service may be given requests.",
        [([service.name], float(service.is_healthy)) for service in services],
        ["service"],
    )
    yield gauge(
        "router_service_state",
        "1 for the state the service is in.",
        [
            ([service.name, str(state)], float(service.state is state))
            for service in services
            for state in ServiceState
        ],
        ["service", "state"],
    )
    yield gauge(
        "router_requests_in_flight",
        "Requests that the service holds.",
        [([service.name], service.in_flight) for service in services],
        ["service"],
    )


def connection_gauges(clients: int, idle: int, busy: int) -> Iterator[Metric]:
    """Open connections on either side."""
    yield gauge(
        "router_client_connections", "Connections from clients.", [([], float(clients))], []
    )
    yield gauge(
        "router_upstream_connections",
        "Connections to engines.",
        [(["idle"], float(idle)), (["busy"], float(busy))],
        ["state"],
    )
