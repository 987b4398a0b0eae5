"""The status pages: fields of the contract, over a fleet without a network."""

from __future__ import annotations

import json
import time

import pytest

from router.api.pages import Condition, StatusPages, timestamp
from unit.api.asking import asking
from unit.fleet.fleet_fakes import UNHEALTHY, build, named, spec

REQUEST = asking()


def pages(fleet, *, phase="running", error: str | None = None, admin=False) -> StatusPages:
    rows = [{"id": "acme"}]
    condition = Condition(phase, 3, error)
    return StatusPages(
        fleet, fleet._metrics, lambda: condition, lambda: rows, lambda _: admin, instance="me"
    )


def read(page) -> tuple[int, dict]:
    answer = page(REQUEST)
    assert answer.content_type == "application/json"
    return answer.status, json.loads(answer.body)


def two(*down: str):
    """Services `a` and `b` of one group, some of them down."""
    fleet = build(spec("a", group="g"), spec("b", group="g"))
    for name in down:
        fleet.set_health(named(fleet, name), UNHEALTHY)
    return fleet


@pytest.mark.parametrize(
    ("down", "status", "word", "count"),
    [
        ([], 200, "healthy", "2/2"),
        (["a"], 200, "degraded", "1/2"),
        (["a", "b"], 503, "unhealthy", "0/2"),
    ],
)
def test_health_is_200_while_one_service_is_healthy(down, status, word, count):
    code, page = read(pages(two(*down)).health)
    assert (code, page["status"], page["healthy_services"]) == (status, word, count)


def test_health_without_services_is_unhealthy():
    assert (read(pages(build()).health))[0] == 503


def test_health_lists_groups_with_the_urls_of_their_healthy_members():
    _, page = read(pages(two("a")).health)
    assert page["backends"] == {"g": ["http://b:8000"]}


def test_a_group_without_a_healthy_member_is_listed_empty():
    _, page = read(pages(two("a", "b")).health)
    assert page["backends"] == {"g": []}


def test_a_draining_service_does_not_count_for_health():
    fleet = two()
    fleet.take("m")
    fleet.publish("yaml", [spec("b", group="g")])
    _, page = read(pages(fleet).health)
    assert page["healthy_services"] == "1/1"


@pytest.mark.parametrize(("phase", "word"), [("running", "running"), ("draining", "draining")])
def test_health_says_whether_the_router_drains(phase, word):
    _, page = read(pages(two(), phase=phase).health)
    assert page["router"] == word
    assert page.keys() == {
        "status", "router", "healthy_services", "timestamp", "backends", "generation",
        "last_reload_error",
    }  # fmt: skip


@pytest.mark.parametrize("error", [None, "server.port: must be 1-65535"])
def test_health_tells_the_configuration_that_runs_and_why_a_newer_one_does_not(error):
    status, page = read(pages(two(), error=error).health)
    assert (status, page["generation"], page["last_reload_error"]) == (200, 3, error)


@pytest.mark.parametrize("phase", ["starting", "running", "draining"])
def test_live_is_200_in_every_phase(phase):
    assert (read(pages(build(), phase=phase).live))[0] == 200


@pytest.mark.parametrize(
    ("phase", "status"), [("starting", 503), ("running", 200), ("draining", 503)]
)
def test_ready_is_503_while_starting_or_draining(phase, status):
    assert (read(pages(two(), phase=phase).ready))[0] == status


def test_services_tells_every_field_of_the_contract():
    fleet = build(spec("a", gpu="1", weight=2, max_concurrency=6))
    _, page = read(pages(fleet).services)
    (row,) = page["services"]
    assert page["total"] == 1
    assert row.keys() >= {
        "name", "url", "healthy", "state", "models", "source", "weight", "in_flight",
        "max_concurrency", "last_check", "last_error", "gpu",
    }  # fmt: skip
    assert (row["healthy"], row["state"], row["models"]) == (True, "healthy", ["m"])
    assert (row["gpu"], row["weight"], row["max_concurrency"]) == ("1", 2, 6)
    assert row["last_check"] == "1970-01-01T00:16:40Z"


def test_services_shows_what_drains():
    fleet = build(spec("a"))
    fleet.take("m")
    fleet.publish("yaml", [])
    _, page = read(pages(fleet).services)
    assert [(row["state"], row["in_flight"]) for row in page["services"]] == [("draining", 1)]


def test_no_page_shows_an_engines_key():
    fleet = build(spec("a", api_key="sk-secret"))
    for page in (pages(fleet).services, pages(fleet).stats, pages(fleet).health):
        assert b"sk-secret" not in (page(REQUEST)).body


def test_stats_tells_every_field_of_the_contract():
    _, page = read(pages(two("a")).stats)
    assert (page["total_services"], page["healthy_services"]) == (2, 1)
    assert page["uptime_s"] >= 0
    for row in page["services"]:
        assert row.keys() >= {
            "name", "healthy", "request_count", "error_count", "response_time", "ttft",
            "in_flight", "queued", "prompt_tokens", "completion_tokens", "tokens_per_second",
        }  # fmt: skip


def test_a_clock_that_is_set_changes_no_uptime(monkeypatch: pytest.MonkeyPatch):
    told = pages(two())
    ahead = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: ahead)
    _, page = read(told.stats)
    assert 0 <= page["uptime_s"] < 3600


@pytest.mark.parametrize("admin", [True, False])
def test_organizations_are_shown_to_the_admin_alone(admin):
    _, page = read(pages(two(), admin=admin).stats)
    assert page.get("organizations") == ([{"id": "acme"}] if admin else None)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain"), ("*/*", "text/plain"),
     ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)  # fmt: skip
def test_metrics_are_in_the_format_that_is_asked_for(accept, content_type):
    answer = pages(two()).metrics(asking("/metrics", (b"accept", accept.encode())))
    assert answer.content_type.startswith(content_type)
    assert b"router_build_info" in answer.body


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, None), (0, "1970-01-01T00:00:00Z"), (1.9, "1970-01-01T00:00:01Z")]
)
def test_times_are_rfc_3339_in_utc(seconds, text):
    assert timestamp(seconds) == text
