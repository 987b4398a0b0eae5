"""Every alert is tested both ways, says what to do, and names what the daemon exports."""

from __future__ import annotations

import re

import pytest
import yaml

from prometheus.conftest import CASES, alerts, dashboard_expressions, metrics_of, panels, rules

ALERTS = alerts()


def cases(name: str) -> list[bool]:
    """For each expectation of an alert whether it is to fire."""
    asked = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    return [
        bool(each["exp_samples"])
        for file in CASES
        for test in yaml.safe_load(file.read_text())["tests"]
        for each in test["promql_expr_test"]
        if each["expr"] == asked
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_firing_and_a_silent_case(name):
    assert set(cases(name)) == {True, False}


def test_no_case_is_of_an_alert_that_is_not_there():
    named = {
        name
        for file in CASES
        for name in re.findall(r'alertname="(\w+)"', file.read_text())
    }  # fmt: skip
    assert named == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_it_means_what_to_look_at_and_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    notes = alert["annotations"]
    assert notes["summary"]
    assert notes["description"]
    assert [line.split(":")[0] for line in notes["runbook"].splitlines() if line[0] != " "] == [
        "Means", "Look", "Do",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def exported(exposition) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_names_metrics_that_the_daemon_exports(rule, exported):
    assert metrics_of(rule["expr"]) <= exported


@pytest.mark.parametrize(("where", "expression"), dashboard_expressions())
def test_every_expression_of_the_dashboard_names_metrics_that_the_daemon_exports(
    where, expression, exported
):
    if expression.startswith("ALERTS"):
        return
    assert metrics_of(expression)
    assert metrics_of(expression) <= exported


def test_what_a_bucket_is_called_in_the_rules_is_what_the_daemon_calls_it(exposition):
    named = {bound for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert named == {"10.0"}
    assert re.search(
        r'^router_time_to_first_token_seconds_bucket\{.*le="10\.0"', exposition, re.MULTILINE
    )


@pytest.mark.parametrize(("title", "panel"), list(panels()))
def test_every_panel_is_told_in_words_and_has_its_place(title, panel):
    assert title
    assert panel["description"]
    place = panel["gridPos"]
    assert 0 <= place["x"] <= place["x"] + place["w"] <= 24


def test_no_two_panels_overlap():
    places = [panel["gridPos"] for _, panel in panels()]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)


def test_panels_have_numbers_of_their_own():
    numbers = [panel["id"] for _, panel in panels()]
    assert len(set(numbers)) == len(numbers)
