"""Gauges: what is true at the scrape, in a form that Prometheus takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from router.api import gauges
from router.api.gauges import connection_gauges, fleet_gauges, ledger_gauges, storage_gauges
from router.exposition import Family, rendered
from router.fleet.load import EngineLoad
from router.fleet.waiting import Ticket
from router.ledger import Limits, MemoryLedger
from router.model import Usage
from router.storage import StorageStatus
from unit.fleet.fleet_fakes import UNHEALTHY, build, named, spec


def read(families: Iterable[Family]) -> dict[tuple[str, ...], float]:
    """(name, label values) -> value; no sample twice."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(rendered(families, openmetrics=False)):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def test_a_service_is_1_while_it_may_be_given_requests():
    fleet = build(spec("a"), spec("b"))
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    found = read(fleet_gauges(fleet))
    assert found["router_service_healthy", "a"] == 1
    assert found["router_service_healthy", "b"] == 0


def test_each_service_is_in_one_state_of_all():
    fleet = build(spec("a"))
    found = read(fleet_gauges(fleet))
    states = {key[2]: value for key, value in found.items() if key[0] == "router_service_state"}
    assert {state for state, value in states.items() if value} == {"healthy"}
    assert states.keys() == {
        "healthy", "unhealthy", "loading", "ejected", "draining", "sleeping",
    }  # fmt: skip


def test_leases_out_are_requests_in_flight():
    fleet = build(spec("a"))
    fleet.take("m")
    fleet.take("m")
    assert read(fleet_gauges(fleet))["router_requests_in_flight", "a"] == 2


async def test_who_waits_is_counted_by_model():
    fleet = build(spec("a", max_concurrency=1))
    fleet.take("m")
    task = asyncio.create_task(fleet.wait("m", Ticket("o", 1, 0, 1e18, ()), 9))
    await asyncio.sleep(0)
    assert read(fleet_gauges(fleet))["router_queue_length", "m"] == 1
    task.cancel()


def test_an_engine_that_told_of_itself_is_shown_and_one_that_did_not_is_not():
    fleet = build(spec("a"), spec("b"))
    fleet.set_load(named(fleet, "a"), EngineLoad(3, 2, 0.5), hung_after_s=30)
    found = read(fleet_gauges(fleet))
    assert found["router_engine_running", "a"] == 3
    assert found["router_engine_waiting", "a"] == 2
    assert found["router_engine_kv_cache_usage_ratio", "a"] == 0.5
    assert ("router_engine_running", "b") not in found


def test_connections_are_counted_on_either_side():
    found = read(connection_gauges(5, 2, 3))
    assert found == {
        ("router_client_connections",): 5,
        ("router_upstream_connections", "idle"): 2,
        ("router_upstream_connections", "busy"): 3,
    }


def test_every_window_of_an_organization_is_shown():
    ledger = MemoryLedger({"acme": Limits(100, None, 10)})
    now = time.time()
    ledger.settle(ledger.reserve("acme", 20, 20, now), Usage(20, 10))
    ledger.reserve("acme", 5, 7, now)
    found = read(ledger_gauges(ledger))
    assert found["router_quota_used", "acme", "tokens", "day"] == 30
    assert found["router_quota_reserved", "acme", "tokens", "month"] == 12
    assert found["router_quota_limit", "acme", "tokens", "day"] == 100
    assert found["router_quota_used", "acme", "requests", "day"] == 1
    assert ("router_quota_limit", "acme", "tokens", "month") not in found
    assert found[("router_ledger_open_reservations",)] == 1
    assert found[("router_ledger_discrepancies",)] == 0
    assert found[("router_ledger_overruns",)] == 0


def test_a_cost_beyond_what_was_held_is_an_overrun():
    ledger = MemoryLedger({})
    now = time.time()
    ledger.settle(ledger.reserve("acme", 1, 1, now), Usage(5, 5))
    assert read(ledger_gauges(ledger))[("router_ledger_overruns",)] == 1


def test_the_number_of_organizations_that_are_shown_is_bounded(monkeypatch):
    monkeypatch.setattr(gauges, "_MAX_ORGANIZATIONS", 3)
    ledger = MemoryLedger({f"o{number}": Limits() for number in range(10)})
    shown = {key[1] for key in read(ledger_gauges(ledger)) if key[0] == "router_quota_used"}
    assert len(shown) == 3


def test_a_disk_that_is_behind_is_shown():
    status = StorageStatus(healthy=False, lag_s=7.5, last_error="full", backlog=3, commits=1)
    assert read(storage_gauges(status)) == {
        ("router_storage_healthy",): 0,
        ("router_storage_lag_seconds",): 7.5,
    }
