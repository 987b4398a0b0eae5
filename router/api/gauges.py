"""What is true at this moment, for `/metrics`: read when scraped, kept nowhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from router.fleet.fleet import Fleet
from router.ledger import Ledger
from router.metrics import gauge
from router.model import ServiceState
from router.storage import StorageStatus

_MAX_ORGANIZATIONS = 200


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


def ledger_gauges(ledger: Ledger) -> Iterator[Metric]:
    """Usage of each organization's windows, and whether the books are in order."""
    now = time.time()
    rows = [
        ([name, str(window.kind), str(window.period)], window)
        for name in ledger.organizations()[:_MAX_ORGANIZATIONS]
        for window in ledger.windows(name, now)
    ]
    labels = ["organization", "kind", "period"]
    yield gauge(
        "router_quota_used",
        "Settled in the current window.",
        [(names, float(window.used)) for names, window in rows],
        labels,
    )
    yield gauge(
        "router_quota_reserved",
        "Held by running requests in the current window.",
        [(names, float(window.reserved)) for names, window in rows],
        labels,
    )
    yield gauge(
        "router_quota_limit",
        "Most that may be used in a window; absent where there is no limit.",
        [(names, float(window.limit)) for names, window in rows if window.limit is not None],
        labels,
    )
    yield gauge(
        "router_ledger_open_reservations",
        "Requests that hold a reservation.",
        [([], float(ledger.open_count()))],
        [],
    )
    yield gauge(
        "router_ledger_discrepancies",
        "Counters whose reserved part is not the sum of the open reservations: 0, or a bug.",
        [([], float(len(ledger.discrepancies())))],
        [],
    )
    yield gauge(
        "router_ledger_overruns",
        "Requests that cost more than was reserved, since the start.",
        [([], float(ledger.overruns))],
        [],
    )


def storage_gauges(status: StorageStatus) -> Iterator[Metric]:
    """How far the disk is behind."""
    yield gauge(
        "router_storage_healthy",
        "1 while the state database takes writes.",
        [([], float(status.healthy))],
        [],
    )
    yield gauge(
        "router_storage_lag_seconds",
        "Age of the oldest write that is not on disk.",
        [([], status.lag_s)],
        [],
    )
