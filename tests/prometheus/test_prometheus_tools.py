"""Prometheus' own tools are content: with the live exposition, the rules, the dashboard."""

from __future__ import annotations

import json

import pytest
import yaml

from prometheus.conftest import CASES, DEPLOY, RULES, dashboard_expressions, tool

pytestmark = pytest.mark.prometheus


def test_the_live_metrics_are_clean(exposition):
    assert tool("promtool", "check", "metrics", text=exposition) == ""


def test_the_configuration_is_valid():
    tool("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_the_rules_are_valid_and_well_formed():
    tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_every_alert_fires_and_is_silent_when_it_should(file):
    tool("promtool", "test", "rules", file)


def test_the_receivers_are_valid():
    tool("amtool", "check-config", DEPLOY / "prometheus" / "alertmanager.yml")


@pytest.mark.parametrize(
    ("labels", "receiver"), [("severity=page", "pages"), ("severity=ticket", "tickets")]
)
def test_a_page_and_a_ticket_go_to_their_receivers(labels, receiver):
    file = DEPLOY / "prometheus" / "alertmanager.yml"
    tool("amtool", "config", "routes", "test", f"--config.file={file}",
         f"--verify.receivers={receiver}", labels)  # fmt: skip


def test_every_expression_of_the_dashboard_parses(tmp_path):
    recorded = [
        {"record": f"dashboard:number_{number}", "expr": expression}
        for number, (_, expression) in enumerate(dashboard_expressions())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"SUCCESS: {len(recorded)} rules found" in tool("promtool", "check", "rules", file)


def test_an_expression_that_does_not_parse_would_be_found(tmp_path):
    file = tmp_path / "wrong.yml"
    rule = {"record": "wrong:one", "expr": "sum by (a router_tasks)"}
    file.write_text(json.dumps({"groups": [{"name": "wrong", "rules": [rule]}]}))
    with pytest.raises(AssertionError):
        tool("promtool", "check", "rules", file)
