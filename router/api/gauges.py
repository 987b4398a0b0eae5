"""What is true at this moment, for `/metrics`: read when scraped, kept nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from router.discovery import SourceStatus
from router.exposition import Family
from router.fleet.fleet import Fleet
from router.fleet.load import EngineLoad
from router.fleet.service import Service
from router.ledger import Ledger
from router.metrics import gauge
from router.model import ServiceState
from router.storage import StorageStatus

_MAX_ORGANIZATIONS = 200


def fleet_gauges(fleet: Fleet) -> Iterator[Family]:
    """State and load of every service."""
    # One that drains has no rows where its successor has the same name.
    services = tuple({each.name: each for each in reversed(fleet.services)}.values())
    states = [(service.name, service.state(time.monotonic())) for service in services]
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
            ([name, str(state)], float(current is state))
            for name, current in states
            for state in ServiceState
        ],
        ["service", "state"],
    )
    yield gauge(
        "router_service_hung",
        "1 while the service has work and makes no token.",
        [([service.name], float(service.hung)) for service in services],
        ["service"],
    )
    yield gauge(
        "router_service_slots",
        "Requests that the service may hold; absent where there is no limit.",
        [
            ([service.name], float(service.slots))
            for service in services
            if service.spec.max_concurrency is not None
        ],
        ["service"],
    )
    yield gauge(
        "router_model_services_healthy",
        "Services that may be given requests for the model: 0 while all of them are down.",
        [
            ([model], float(sum(each.is_healthy for each in members)))
            for model, members in fleet.catalog.members.items()
        ],
        ["model"],
    )
    yield gauge(
        "router_requests_in_flight",
        "Requests that the service holds.",
        [([service.name], service.in_flight) for service in services],
        ["service"],
    )
    yield gauge(
        "router_queue_length",
        "Requests that wait for a slot, by model.",
        [([model], float(waiting)) for model, waiting in fleet.queued.items()],
        ["model"],
    )
    yield from _engine_gauges(services)


def _engine_gauges(services: Sequence[Service]) -> Iterator[Family]:
    """What the engines tell of themselves, for those that do."""
    told = [(service.name, service.load) for service in services if service.load is not None]
    for name, text, read in _ENGINE_GAUGES:
        yield gauge(name, text, [([service], read(load)) for service, load in told], ["service"])


_ENGINE_GAUGES: tuple[tuple[str, str, Callable[[EngineLoad], float]], ...] = (
    ("router_engine_running", "Sequences in the engine's batch.", lambda load: load.running),
    ("router_engine_waiting", "Sequences in the engine's own queue.", lambda load: load.waiting),
    (
        "router_engine_kv_cache_usage_ratio",
        "Share of the engine's KV cache in use.",
        lambda load: load.kv_cache_usage,
    ),
)


def process_gauges(body_bytes: int, tasks: int, log_lines_dropped: int) -> Iterator[Family]:
    """What the process holds, and what it could not write."""
    yield gauge(
        "router_request_body_bytes", "Of request bodies, held now.", [([], float(body_bytes))], []
    )
    yield gauge("router_tasks", "Tasks of the event loop.", [([], float(tasks))], [])
    dropped = Family(
        "counter", "router_access_log_dropped", "Lines of the access log that could not be written."
    )
    dropped.add([], log_lines_dropped)
    yield dropped


def connection_gauges(clients: int, idle: int, busy: int) -> Iterator[Family]:
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


def ledger_gauges(ledger: Ledger) -> Iterator[Family]:
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


def reload_gauges(generation: int, last_error: str | None, last_reload: float) -> Iterator[Family]:
    """Which configuration runs, and whether it is the file's."""
    yield gauge(
        "router_config_generation",
        "Configurations that have run since the start, this one included.",
        [([], float(generation))],
        [],
    )
    yield gauge(
        "router_config_last_reload_success",
        "0 while the file holds a configuration that was refused.",
        [([], float(last_error is None))],
        [],
    )
    yield gauge(
        "router_config_last_reload_success_timestamp_seconds",
        "When the file was last found to hold what runs, or made to be: Unix time.",
        [([], last_reload)],
        [],
    )


def discovery_gauges(statuses: Iterable[SourceStatus]) -> Iterator[Family]:
    """What each source of services beside the configuration file knows."""
    rows = [([status.source], status) for status in statuses]
    yield gauge(
        "router_discovery_healthy",
        "1 while the source is read; 0: what it told last still counts.",
        [(labels, float(status.healthy)) for labels, status in rows],
        ["source"],
    )
    yield gauge(
        "router_discovery_generation",
        "How often the services of the source have changed since the start.",
        [(labels, float(status.generation)) for labels, status in rows],
        ["source"],
    )
    yield gauge(
        "router_discovery_services",
        "Services that the source publishes.",
        [(labels, float(status.services)) for labels, status in rows],
        ["source"],
    )


def storage_gauges(status: StorageStatus) -> Iterator[Family]:
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
