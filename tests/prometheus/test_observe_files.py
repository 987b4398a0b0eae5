"""What compose.observe.yaml starts finds its files, its networks and its data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from prometheus.conftest import DASHBOARDS, DEPLOY

OBSERVE = yaml.safe_load((DEPLOY / "compose.observe.yaml").read_text())
ROUTER = yaml.safe_load((DEPLOY / "compose.router.yaml").read_text())
SERVICES = OBSERVE["services"]
GRAFANA = DEPLOY / "grafana" / "provisioning"


def mounts(service: str) -> dict[str, Path]:
    """Folder or file in the container -> where it comes from."""
    found = (volume.split(":") for volume in SERVICES[service]["volumes"])
    return {parts[1]: DEPLOY / parts[0] for parts in found if parts[0].startswith(".")}


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there(service):
    assert mounts(service)
    for source in mounts(service).values():
        assert source.exists(), source


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_loopback_alone_unless_told_otherwise(service):
    for port in SERVICES[service].get("ports", ()):
        assert port.startswith("${OBSERVE_ADDRESS:-127.0.0.1}:")


@pytest.mark.parametrize("name", ["inference-network", "observe"])
def test_networks_are_those_of_the_router(name):
    assert OBSERVE["networks"][name] == {"name": ROUTER["networks"][name]["name"], "external": True}


def test_prometheus_shares_a_network_with_everything_that_its_file_names():
    hosts = re.findall(r"\b([a-z-]+):\d{4}\b", (DEPLOY / "prometheus/prometheus.yml").read_text())
    assert set(hosts) == {"alertmanager", "router-metrics", "docker-listing"}
    ours = set(SERVICES["prometheus"]["networks"])
    for name in ("alertmanager", "docker-listing"):
        assert ours & set(SERVICES[name]["networks"])
    assert "observe" in ours
    assert ROUTER["services"]["router"]["networks"]["observe"] == {"aliases": ["router-metrics"]}


def test_nobody_but_prometheus_reaches_the_filter_of_docker():
    sharing = [name for name, each in SERVICES.items() if "listing" in each["networks"]]
    assert sorted(sharing) == ["docker-listing", "prometheus"]
    assert "listing" not in ROUTER["networks"]


def test_the_network_of_observers_is_let_see_the_status_pages():
    config = (DEPLOY / "config" / "backends.yaml").read_text()
    (pool,) = ROUTER["networks"]["observe"]["ipam"]["config"]
    assert pool["subnet"] in config


def test_the_rules_are_where_prometheus_looks_for_them():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["rules/*.yml"]
    assert mounts("prometheus")["/etc/prometheus"] == DEPLOY / "./prometheus"


def test_grafana_is_given_the_dashboards_and_asks_this_prometheus():
    (provider,) = yaml.safe_load((GRAFANA / "dashboards/router.yml").read_text())["providers"]
    source = mounts("grafana")[provider["options"]["path"]]
    assert sorted(source.resolve().glob("*.json")) == [each.resolve() for each in DASHBOARDS]
    (asked,) = yaml.safe_load((GRAFANA / "datasources/prometheus.yml").read_text())["datasources"]
    assert asked["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_grafana_has_no_password_of_ours():
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith(
        "${GRAFANA_PASSWORD:?"
    )
