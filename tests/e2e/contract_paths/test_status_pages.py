"""Health, services, stats and metrics, as probes, people and dashboards read them."""

from __future__ import annotations

import re

from support.daemon import free_port, service
from support.fleet import BIG, OTHER, PATH, SQL, TWIN_A, TWIN_B, ask
from support.http import call
from support.upstream import Send
from support.wire import answer


def test_health_tells_how_many_of_how_many_and_where(router, engines):
    response = router.get("/health")
    assert response.status == 200
    content = response.json
    assert (content["status"], content["router"]) == ("degraded", "running")
    assert content["healthy_services"] == "2/3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", content["timestamp"])
    backends = content["backends"]
    assert backends["chat"] == [engines["chat"].url]
    assert backends["text2sql"] == [engines["sql"].url]
    assert not backends.get("down")


def test_live_and_ready(router):
    assert router.get("/health/live").status == 200
    assert router.get("/health/ready").status == 200


def test_services_lists_what_is_known_of_each(router, engines):
    content = router.get("/services").json
    assert content["total"] == len(content["services"]) == 3
    rows = {row["name"]: row for row in content["services"]}
    for row in rows.values():
        assert set(row) >= {
            "name", "url", "healthy", "state", "models", "source", "weight", "in_flight",
            "max_concurrency", "last_check", "last_error", "gpu",
        }  # fmt: skip
    assert rows["chat"]["url"] == engines["chat"].url
    assert rows["chat"]["models"] == [BIG, TWIN_A]
    assert (rows["chat"]["healthy"], rows["chat"]["state"]) == (True, "healthy")
    assert sorted(rows["sql"]["models"]) == sorted([SQL, OTHER, TWIN_B])
    assert (rows["sql"]["max_concurrency"], rows["chat"]["max_concurrency"]) == (6, None)
    assert (rows["down"]["healthy"], rows["down"]["state"]) == (False, "loading")
    assert rows["down"]["last_error"]
    assert b"engine-key" not in router.get("/services").body


def test_stats_counts_requests_and_errors(router, engines):
    def row() -> dict:
        return next(r for r in router.stats()["services"] if r["name"] == "chat")

    before = row()
    assert set(before) >= {
        "name", "healthy", "request_count", "error_count", "response_time", "ttft", "in_flight",
        "queued", "prompt_tokens", "completion_tokens", "tokens_per_second",
    }  # fmt: skip
    assert ask(router).status == 200
    engines["chat"].script = lambda _: [Send(answer({"error": "x"}, 500))]
    assert ask(router).status == 500
    after = row()
    assert after["request_count"] == before["request_count"] + 2
    assert after["error_count"] == before["error_count"] + 1
    assert after["in_flight"] == 0
    whole = router.stats()
    assert (whole["total_services"], whole["healthy_services"]) == (3, 2)
    assert whole["uptime_s"] > 0
    assert "organizations" not in whole


def test_a_4xx_is_no_error_of_the_service(router, engines):
    def errors() -> int:
        return next(r for r in router.stats()["services"] if r["name"] == "chat")["error_count"]

    before = errors()
    engines["chat"].script = lambda _: [Send(answer({"error": "x"}, 400))]
    assert ask(router).status == 400
    assert errors() == before


def test_metrics_are_prometheus_text_with_the_promised_names(router):
    ask(router)
    response = router.get("/metrics")
    assert response.header("content-type").startswith("text/plain")
    text = response.body.decode()
    for name in (
        "router_requests_total", "router_request_duration_seconds_bucket",
        "router_time_to_first_token_seconds_bucket", "router_requests_in_flight",
        "router_service_healthy", "router_upstream_retries_total", "router_client_aborts_total",
        "router_streams_truncated_total", "router_build_info", "process_resident_memory_bytes",
    ):  # fmt: skip
        assert re.search(rf"^(# TYPE )?{name}", text, re.MULTILINE), name
    assert router.metric("router_service_healthy", service="chat") == 1
    assert router.metric("router_service_healthy", service="down") == 0


def test_metrics_are_openmetrics_when_asked_for(router):
    kind = "application/openmetrics-text; version=1.0.0"
    response = call(router.port, "GET", "/metrics", None, (("accept", kind),))
    assert response.header("content-type").startswith("application/openmetrics-text")
    assert response.body.endswith(b"# EOF\n")


def test_a_client_cannot_invent_label_values(router):
    for number in range(30):
        ask(router, PATH, f"invented-{number}")
        call(router.port, "GET", f"/invented-{number}")
        call(router.port, f"INVENTED{number}", PATH)
    assert b"invented" not in router.get("/metrics").body.lower()


def test_health_is_503_when_nothing_is_healthy(start_daemon):
    daemon = start_daemon(
        {"services": [service("down", f"http://127.0.0.1:{free_port()}", "m")]}, healthy=0
    )
    response = daemon.get("/health")
    assert (response.status, response.json["status"]) == (503, "unhealthy")
    assert daemon.get("/health/ready").status == 200
    assert daemon.get("/health/live").status == 200
