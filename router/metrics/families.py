"""How the cells are shown: each family of metrics, filled with what was counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from router.exposition import Family
from router.metrics.cells import OrganizationCells, ServiceCells
from router.metrics.histogram import Histogram

_HISTOGRAMS = (
    ("duration", "router_request_duration_seconds", "Head of the request to end of the answer."),
    (
        "time_to_first_token",
        "router_time_to_first_token_seconds",
        "Head of the request to first byte of the answer's body.",
    ),
    (
        "inter_token",
        "router_inter_token_latency_seconds",
        "Time between two events of a stream.",
    ),
    (
        "away",
        "router_service_away_seconds",
        "Time a service was in the state it was in before it was healthy again.",
    ),
    (
        "leave",
        "router_service_leave_seconds",
        "From the first sign of a fault to the state that takes the service out.",
    ),
    ("queue", "router_queue_duration_seconds", "Wait for a slot of a service."),
    ("connect", "router_upstream_connect_seconds", "Time that a new connection took."),
    (
        "abort_release",
        "router_abort_release_seconds",
        "From the client's leaving to the close of the connection that the engine worked for.",
    ),
    (
        "overhead",
        "router_overhead_seconds",
        "The router's own share of the time to first token: whole request read to sent upstream.",
    ),
)
_COUNTERS = (
    ("request_bytes", "router_request_bytes", "Bytes of request bodies sent upstream."),
    ("response_bytes", "router_response_bytes", "Bytes of answer bodies relayed."),
    ("streams_truncated", "router_streams_truncated", "Answers that broke after their first byte."),
    ("client_aborts", "router_client_aborts", "Exchanges that the client left before their end."),
)


def build_family(version: str) -> Family:
    """Which version runs."""
    family = Family("info", "router_build", "The running version.", ["version"])
    family.add([version], 1)
    return family


def request_families(services: Mapping[str, ServiceCells]) -> Iterator[Family]:
    """What became of the attempts at each service."""
    requests = Family(
        "counter", "router_requests", "Answers by a service.", ["service", "path", "status"]
    )
    errors = Family(
        "counter",
        "router_upstream_errors",
        "Failed attempts at a service.",
        ["service", "kind"],
    )
    retries = Family(
        "counter", "router_upstream_retries", "Attempts after the first.", ["service", "reason"]
    )
    transitions = Family(
        "counter",
        "router_service_transitions",
        "Changes of a service's state.",
        ["service", "was", "state"],
    )
    tokens = Family(
        "counter",
        "router_tokens",
        "Tokens, as the engines report them.",
        ["service", "model", "kind"],
    )
    for name, cells in services.items():
        for (path, status), count in cells.requests.items():
            requests.add([name, path, status], count)
        for kind, count in cells.errors.items():
            errors.add([name, kind], count)
        for reason, count in cells.retries.items():
            retries.add([name, reason], count)
        for (was, state), count in cells.transitions.items():
            transitions.add([name, was, state], count)
        for (model, kind), count in cells.tokens.items():
            tokens.add([name, model, kind], count)
    yield from (requests, errors, retries, transitions, tokens)


def counter_families(services: Mapping[str, ServiceCells]) -> Iterator[Family]:
    """What is counted at each service without further labels."""
    for attribute, metric_name, text in _COUNTERS:
        family = Family("counter", metric_name, text, ["service"])
        for name, cells in services.items():
            family.add([name], getattr(cells, attribute))
        yield family


def histogram_families(services: Mapping[str, ServiceCells]) -> Iterator[Family]:
    """How long things took at each service."""
    for attribute, metric_name, text in _HISTOGRAMS:
        family = Family("histogram", metric_name, text, ["service"])
        for name, cells in services.items():
            histogram: Histogram = getattr(cells, attribute)
            family.add_histogram([name], histogram.shape(), histogram.total)
        yield family


def lag_family(lag: Histogram) -> Family:
    """How late the event loop is."""
    family = Family(
        "histogram",
        "router_event_loop_lag_seconds",
        "How late the event loop runs what is due.",
    )
    family.add_histogram([], lag.shape(), lag.total)
    return family


def organization_families(organizations: Mapping[str, OrganizationCells]) -> Iterator[Family]:
    """What each organization was answered, and charged for it."""
    requests = Family(
        "counter", "router_organization_requests", "Requests answered.", ["organization"]
    )
    tokens = Family(
        "counter", "router_organization_tokens", "Tokens charged.", ["organization", "kind"]
    )
    for name, cells in organizations.items():
        requests.add([name], cells.requests)
        tokens.add([name, "prompt"], cells.prompt_tokens)
        tokens.add([name, "completion"], cells.completion_tokens)
    yield from (requests, tokens)


def rejection_family(rejections: Mapping[str, int]) -> Family:
    """What the router itself answered with an error; `rejections` by its code."""
    family = Family(
        "counter",
        "router_rejections",
        "Requests the router answered itself, by code.",
        ["code"],
    )
    for code, count in rejections.items():
        family.add([code], count)
    return family


def gauge(
    name: str, text: str, rows: Iterable[tuple[Sequence[str], float]], labels: Sequence[str]
) -> Family:
    """A gauge family from (label values, value) rows."""
    family = Family("gauge", name, text, labels)
    for values, value in rows:
        family.add(values, value)
    return family
