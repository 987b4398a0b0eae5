"""A real Prometheus with the shipped files beside a running router: scrapes, alerts, discovery.

Of the shipped files only the addresses are others, and the times: what lasts minutes there takes
seconds here.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from prometheus.conftest import DEPLOY, RULES, alerts, dashboard_expressions
from prometheus.servers import DockerApi, Program, alertmanager, docker_api, prometheus
from support.daemon import Daemon, Engine, service
from support.http import call, chat

pytestmark = pytest.mark.prometheus


class House:
    """Two engines and their router, Prometheus, Alertmanager, and a Docker API that shows one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.kept = stack.enter_context(Engine(folder / "kept", "org/kept"))
        self.lost = stack.enter_context(Engine(folder / "lost", "org/lost"))
        self.router = stack.enter_context(
            Daemon(
                folder / "router",
                {
                    "health": {"interval_s": 1, "timeout_s": 1, "unhealthy_after": 1},
                    "services": [
                        service("kept", self.kept.url), service("lost", self.lost.url)
                    ],
                },
            )
        )  # fmt: skip
        self.docker: DockerApi = stack.enter_context(docker_api(_container(self.kept.port)))
        receivers = DEPLOY / "prometheus" / "alertmanager.yml"
        self.manager: Program = stack.enter_context(alertmanager(folder, receivers))
        (folder / "rules").mkdir()
        (folder / "rules" / "router.yml").write_text(_faster(RULES.read_text()))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration()))
        self.prometheus: Program = stack.enter_context(prometheus(folder))

    def _configuration(self) -> dict[str, Any]:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        router, engines = config["scrape_configs"]
        router["static_configs"] = [{"targets": [f"127.0.0.1:{self.router.port}"]}]
        engines["docker_sd_configs"][0] |= {"host": self.docker.url, "refresh_interval": "1s"}
        manager = {"targets": [f"127.0.0.1:{self.manager.port}"]}
        config["alerting"] = {"alertmanagers": [{"static_configs": [manager]}]}
        return config

    def target(self, job: str) -> dict[str, Any] | None:
        """The target of a job that has been scraped."""
        page = self.prometheus.get("/api/v1/targets?state=active") or {
            "data": {"activeTargets": []}
        }
        found = (row for row in page["data"]["activeTargets"] if row["labels"]["job"] == job)
        return next((row for row in found if row["health"] == "up"), None)

    def value(self, expression: str) -> float | None:
        """An expression's one value."""
        result = self.result(expression) or []
        return float(result[0]["value"][1]) if result else None

    def result(self, expression: str) -> list[dict[str, Any]] | None:
        """What Prometheus makes of an expression; None where it refuses it."""
        page = self.prometheus.get(f"/api/v1/query?query={quote(expression)}")
        return page["data"]["result"] if page else None

    def firing(self, name: str) -> dict[str, Any] | None:
        """An alert that fires, as Prometheus tells it."""
        page = self.prometheus.get("/api/v1/alerts")
        rows = page["data"]["alerts"] if page else []
        found = (row for row in rows if row["labels"]["alertname"] == name)
        return next((row for row in found if row["state"] == "firing"), None)

    def told(self, name: str) -> dict[str, Any] | None:
        """An alert as Alertmanager has got it."""
        rows = self.manager.get("/api/v2/alerts") or []
        return next((row for row in rows if row["labels"]["alertname"] == name), None)


def _faster(text: str) -> str:
    """The rules, with seconds in place of minutes before an alert fires."""
    return re.sub(r"(?m)^(\s+for: \d+)m$", r"\1s", text)


def _container(port: int) -> dict[str, Any]:
    labels = {"router.enable": "true", "router.name": "kept", "router.port": str(port),
              "router.gpu": "3", "com.docker.compose.service": "chat"}  # fmt: skip
    network = {"NetworkID": "n1", "IPAddress": "127.0.0.1"}
    return {
        "Id": "c1", "Names": ["/chat"], "Labels": labels, "State": "running",
        "HostConfig": {"NetworkMode": "inference-network"},
        "NetworkSettings": {"Networks": {"inference-network": network}},
        "Ports": [{"PrivatePort": port, "Type": "tcp"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory):
    with ExitStack() as stack:
        yield House(tmp_path_factory.mktemp("house"), stack)


def test_prometheus_scrapes_the_router(house):
    house.prometheus.until(lambda: house.target("router"), "the router is up")
    assert call(house.router.port, "POST", "/v1/chat/completions", chat("org/kept")).status == 200
    house.prometheus.until(
        lambda: house.value('sum(router_requests_total{service="kept",status="2xx"})') == 1,
        "the request is counted",
    )


def test_prometheus_finds_an_engine_by_its_label_and_calls_it_as_the_router_does(house):
    row = house.prometheus.until(lambda: house.target("engines"), "the engine is up")
    assert row["labels"]["service"] == "kept"
    assert row["labels"]["gpu"] == "3"
    assert row["scrapeUrl"] == f"{house.kept.url}/metrics"


def test_prometheus_asks_docker_for_no_more_than_is_written(house):
    house.prometheus.until(lambda: "/networks" in house.docker.asked, "docker is asked")
    assert house.docker.asked <= {"/_ping", "/containers/json", "/networks"}


def test_while_all_is_well_nothing_fires(house):
    house.prometheus.until(lambda: house.target("router"), "the router is up")
    page = house.prometheus.get("/api/v1/alerts")
    assert [row["labels"] for row in page["data"]["alerts"] if row["state"] == "firing"] == []


def test_every_expression_of_the_dashboard_can_be_answered(house):
    house.prometheus.until(lambda: house.target("router"), "the router is up")
    found = [(where, house.result(expression)) for where, expression in dashboard_expressions()]
    assert [where for where, result in found if result is None] == []
    shown = {where for where, result in found if result}
    assert {"Healthy services", "State now", "In flight", "Version", "Memory"} <= shown


def test_a_killed_engine_raises_its_alerts_and_they_are_passed_on(house):
    house.lost.kill()
    service_down = house.prometheus.until(lambda: house.firing("RouterServiceDown"), "it fires")
    model_down = house.prometheus.until(lambda: house.firing("RouterModelDown"), "it fires")
    assert service_down["labels"]["service"] == "lost"
    assert model_down["labels"]["model"] == "org/lost"
    assert "org/lost" in model_down["annotations"]["summary"]
    told = house.manager.until(lambda: house.told("RouterModelDown"), "it is passed on")
    assert [each["name"] for each in told["receivers"]] == ["pages"]


def test_the_alerts_words_are_filled_in(house):
    for name in ("RouterServiceDown", "RouterModelDown"):
        alert = house.prometheus.until(lambda name=name: house.firing(name), "it fires")
        assert "<error" not in str(alert["annotations"])
        assert "{{" not in str(alert["annotations"])


def test_every_rule_is_evaluated_without_an_error(house):
    def evaluated() -> list | None:
        page = house.prometheus.get("/api/v1/rules")
        rows = [rule for group in page["data"]["groups"] for rule in group["rules"]] if page else []
        return rows if rows and all(row["health"] != "unknown" for row in rows) else None

    rows = house.prometheus.until(evaluated, "all are evaluated")
    assert [(row["name"], row.get("lastError")) for row in rows if row["health"] != "ok"] == []
    assert set(alerts()) <= {row["name"] for row in rows}


def test_a_router_that_is_gone_raises_its_alert(house):
    assert house.router.terminate() == 0
    alert = house.prometheus.until(lambda: house.firing("RouterDown"), "it fires")
    assert alert["labels"]["severity"] == "page"
