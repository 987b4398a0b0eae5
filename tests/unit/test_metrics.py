"""Cells and their exposition: what Prometheus gets is what prometheus-client would have counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from router.exposition import Family, rendered
from router.metrics import FINE_SECONDS, SECONDS, Histogram, Metrics, gauge
from router.metrics.cells import CHARGED, LAST, ORGANIZATION
from router.model import Usage

BOUNDS = pytest.mark.parametrize("bounds", [SECONDS, FINE_SECONDS])
VALUES = st.lists(
    st.floats(0, 1000) | st.sampled_from(SECONDS + FINE_SECONDS), min_size=1, max_size=20
)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(bound, count below it), as a scrape tells them."""
    family = Family("histogram", "x", "X.")
    family.add_histogram([], histogram.shape(), histogram.total)
    (read,) = text_string_to_metric_families(rendered([family], openmetrics=False))
    return [(s.labels["le"], s.value) for s in read.samples if s.name == "x_bucket"]


@BOUNDS
@settings(deadline=None)
@given(values=VALUES)
def test_buckets_equal_those_of_prometheus_client(bounds, values):
    reference = Reference("x", "x", buckets=bounds, registry=CollectorRegistry())
    histogram = Histogram(bounds)
    for value in values:
        reference.observe(value)
        histogram.observe(value)
    samples = next(iter(reference.collect())).samples
    expected = [(s.labels["le"], s.value) for s in samples if s.name == "x_bucket"]
    assert buckets(histogram) == expected
    assert histogram.total == pytest.approx(sum(values))


@BOUNDS
def test_a_value_on_a_bound_counts_below_it(bounds):
    histogram = Histogram(bounds)
    histogram.observe(bounds[3])
    assert [count for _, count in buckets(histogram)][2:4] == [0, 1]


@BOUNDS
def test_bounds_rise(bounds):
    assert list(bounds) == sorted(set(bounds))


def filled() -> Metrics:
    """Every cell of one service is used once."""
    metrics = Metrics("1.2.3")
    cells = metrics.service('odd "name"\n\\')
    cells.requests["chat", "2xx"] += 3
    cells.errors["connect"] += 1
    cells.retries["failover"] += 1
    cells.tokens["m", "prompt"] = 5
    cells.tokens["m", "completion"] = 7
    cells.duration.observe(0.2)
    metrics.rejections["model_not_found"] += 2
    return metrics


def families(metrics: Metrics):
    text = metrics.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value_of(metrics: Metrics, name: str, **labels: str) -> float:
    (value,) = (
        sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
    return value


def test_the_exposition_is_read_back_as_it_was_counted():
    metrics = filled()
    service = 'odd "name"\n\\'
    assert value_of(metrics, "router_requests_total", service=service, status="2xx") == 3
    assert value_of(metrics, "router_tokens_total", service=service, kind="completion") == 7
    assert value_of(metrics, "router_rejections_total", code="model_not_found") == 2
    assert value_of(metrics, "router_request_duration_seconds_sum", service=service) == 0.2
    assert value_of(metrics, "router_request_duration_seconds_count", service=service) == 1


def test_openmetrics_is_read_back_too():
    text = filled().text(openmetrics=True)
    names = {family.name for family in parse_openmetrics(text)}
    assert {"router_requests", "router_request_duration_seconds", "router_build"} <= names


OWN = (
    "router_requests_total", "router_request_duration_seconds",
    "router_time_to_first_token_seconds", "router_inter_token_latency_seconds",
    "router_queue_duration_seconds", "router_overhead_seconds", "router_tokens_total",
    "router_rejections_total", "router_upstream_retries_total", "router_streams_truncated_total",
    "router_client_aborts_total", "router_build_info",
)  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_the_names_that_dashboards_rely_on_are_there_from_the_start(name):
    text = Metrics("0").text()
    assert f"# TYPE {name} " in text


def test_every_name_is_the_routers_the_processes_or_pythons():
    names = families(filled())
    assert {name.partition("_")[0] for name in names} <= {"router", "process", "python"}


def test_the_version_is_told():
    assert value_of(filled(), "router_build_info", version="1.2.3") == 1


def test_cells_are_kept_for_a_service_that_comes_back():
    metrics = Metrics("0")
    assert metrics.service("a") is metrics.service("a")
    assert metrics.service("a") is not metrics.service("b")


def test_a_source_is_asked_at_every_scrape():
    metrics, asked = Metrics("0"), []

    def source():
        asked.append(1)
        yield gauge("router_x", "X.", [(["a"], float(len(asked)))], ["service"])

    metrics.add_source(source)
    assert [value_of(metrics, "router_x", service="a") for _ in range(2)] == [1.0, 2.0]


def test_no_cells_are_shared_between_owners():
    first, second = Metrics("0"), Metrics("0")
    first.service("a").requests["chat", "2xx"] += 1
    assert not second.service("a").requests


def test_services_that_have_been_gone_longest_are_forgotten_in_the_end():
    metrics = Metrics("0")
    for number in range(300):
        metrics.service(f"s{number}")
        metrics.retain({f"s{number}"})
    lines = metrics.text().splitlines()
    told = {line for line in lines if line.startswith("router_client_aborts_total{")}
    assert len(told) == 257
    assert 'router_client_aborts_total{service="s0"} 0' not in told
    assert 'router_client_aborts_total{service="s299"} 0' in told


def test_a_service_that_comes_back_has_its_counts_and_is_not_forgotten():
    metrics = Metrics("0")
    metrics.service("a").client_aborts = 7
    metrics.retain(set())
    metrics.retain({"a"})
    for number in range(300):
        metrics.service(f"s{number}")
        metrics.retain({"a"})
    assert value_of(metrics, "router_client_aborts_total", service="a") == 7


def sample(organization: str, charged: Usage | None, *, last: bool = True):
    """Of a request that was answered."""
    cells: list[object] = [0.0] * 24
    cells[1] = ("chat", 200)
    cells[2], cells[15] = None, "m"
    cells[ORGANIZATION], cells[LAST], cells[CHARGED] = organization, last, charged
    return tuple(cells)


def test_requests_and_what_was_charged_are_counted_by_organization():
    """A call that moved is one request, and the anonymous are no organization."""
    metrics = Metrics("1.2.3")
    cells = metrics.service("a")
    for each in (
        sample("beta", Usage(1, 2)),
        sample("acme", Usage(10, 20)),
        sample("", None),
        sample("gamma", None, last=False),
        sample("acme", None, last=False),
        sample("acme", Usage(100, 200)),
        sample("acme", None),
    ):
        cells.add(each)
    told = {
        (each.labels["organization"], each.labels.get("kind", "requests")): each.value
        for family in families(metrics).values()
        for each in family.samples
        if each.name.startswith("router_organization_") and each.name.endswith("_total")
    }
    assert told == {
        ("acme", "requests"): 3, ("acme", "prompt"): 110, ("acme", "completion"): 220,
        ("beta", "requests"): 1, ("beta", "prompt"): 1, ("beta", "completion"): 2,
    }  # fmt: skip
