"""What the compose files, the settings' example and the unit promise."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.config import load
from unit.deploy.machine import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
FILES = [DEPLOY / f"compose.{name}.yaml" for name in ("router", "nginx", "chat", "text2sql", "sim")]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::?[-+?][^}]*)?")


def services(path: Path) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return content


ALL = [(path.name, name, row) for path in FILES for name, row in services(path).items()]


@pytest.mark.parametrize(("file", "name", "service"), ALL, ids=lambda value: str(value)[:24])
def test_every_container_restarts_is_checked_and_bounded(
    file: str, name: str, service: dict[str, Any]
) -> None:
    assert service["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert service["mem_limit"]
    assert "no-new-privileges:true" in service["security_opt"]
    # The router's check is in its image.
    assert "healthcheck" in service or (file, name) == ("compose.router.yaml", "router")


@pytest.mark.parametrize(("file", "name", "service"), ALL, ids=lambda value: str(value)[:24])
def test_only_nginx_is_reached_from_outside(file: str, name: str, service: dict[str, Any]) -> None:
    assert ("ports" in service) == (name == "nginx")


@pytest.mark.parametrize(
    ("name", "gpu"), [("chat", "CHAT_GPU:-1"), ("text2sql", "TEXT2SQL_GPU:-0")]
)
def test_an_engine_has_its_container_name_alias_and_gpu(name: str, gpu: str) -> None:
    engine = services(DEPLOY / f"compose.{name}.yaml")[name]
    assert engine["container_name"] == f"vllm-{name}"
    assert engine["networks"]["inference-network"]["aliases"] == [name]
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": [f"${{{gpu}}}"], "capabilities": ["gpu"]}
    assert "start_period" in engine["healthcheck"]
    assert engine["ipc"] == "private"


@pytest.mark.parametrize("name", ["chat", "text2sql"])
def test_a_simulated_engine_stands_where_the_real_one_does(name: str) -> None:
    real = services(DEPLOY / f"compose.{name}.yaml")[name]
    simulated = services(DEPLOY / "compose.sim.yaml")[name]
    for key in ("container_name", "networks", "labels", "restart"):
        assert simulated[key] == real[key], key
    model = real["command"].split()[0]
    assert f"--model {model} " in simulated["command"]


def test_the_socket_is_mounted_by_the_filter_alone() -> None:
    holders = [
        name
        for _, name, row in ALL
        if any("docker.sock" in volume for volume in row.get("volumes", []))
    ]
    assert holders == ["docker-readonly"]


def test_the_filter_is_on_no_network_that_engines_are_on() -> None:
    assert services(DEPLOY / "compose.router.yaml")["docker-readonly"]["networks"] == ["discovery"]


def test_every_variable_of_the_compose_files_is_explained_in_the_example() -> None:
    explained = set(
        re.findall(r"^([A-Z0-9_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    )
    used = {name for path in FILES for name in VARIABLE.findall(path.read_text())}
    assert used - explained == {"STATE_VOLUME"}  # start-all.sh's own


def test_defaults_of_the_compose_files_are_those_of_the_example() -> None:
    example = dict(
        re.findall(r"^([A-Z0-9_]+)=(.+)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    )
    for path in FILES:
        for name, default in re.findall(r"\$\{([A-Z0-9_]+):-([^}]+)\}", path.read_text()):
            assert example.get(name, default) == default, f"{path.name}: {name}"


def test_the_router_and_nginx_have_addresses_that_neither_can_take_from_the_other() -> None:
    example = dict(
        re.findall(r"^([A-Z0-9_]+)=(.+)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    )
    fixed = {
        name: services(DEPLOY / f"compose.{name}.yaml")[name]["networks"]["front"]["ipv4_address"]
        for name in ("router", "nginx")
    }
    assert fixed["router"].startswith("${ROUTER_ADDRESS:-")
    assert fixed["nginx"].startswith("${NGINX_ADDRESS:-")
    subnet = ipaddress.ip_network(example["FRONT_SUBNET"])
    taken = {ipaddress.ip_address(example[f"{name}_ADDRESS"]) for name in ("ROUTER", "NGINX")}
    assert len(taken) == 2
    assert taken < set(list(subnet.hosts())[1:])  # the first is the network's gateway


def test_one_address_cannot_fill_the_place_where_large_bodies_wait() -> None:
    conf = (REPOSITORY / "nginx" / "gateway.conf").read_text()
    (at_once,) = re.findall(r"limit_conn +large_bodies (\d+);", conf)
    (megabytes,) = re.findall(r"client_max_body_size +(\d+)m;", conf)
    tmpfs = services(DEPLOY / "compose.nginx.yaml")["nginx"]["tmpfs"]
    (holds,) = re.findall(r"/tmp:size=(\d+)m", " ".join(tmpfs))
    assert int(at_once) * int(megabytes) < int(holds)


def test_the_router_s_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRONT_SUBNET", raising=False)
    settings = load(DEPLOY / "config" / "backends.yaml")
    assert settings.discovery.docker.enabled
    assert settings.discovery.docker.endpoint == "tcp://docker-readonly:2375"
    assert [str(network) for network in settings.server.trusted_proxies] == ["172.16.255.240/28"]


def test_the_router_has_more_time_to_stop_than_a_drain_takes() -> None:
    grace = services(DEPLOY / "compose.router.yaml")["router"]["stop_grace_period"]
    settings = load(REPOSITORY / "backends.yaml")
    assert int(grace.removesuffix("s")) > settings.server.drain_timeout_s + 5


def test_the_body_that_nginx_takes_is_the_router_s() -> None:
    conf = (REPOSITORY / "nginx" / "gateway.conf").read_text()
    megabytes = re.search(r"client_max_body_size\s+(\d+)m;", conf)
    assert megabytes is not None
    assert int(megabytes[1]) == load(REPOSITORY / "backends.yaml").server.max_body_mb


def test_only_what_the_image_needs_goes_into_its_build() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
    )
    for source in " ".join(copied).split():
        assert f"!{source}" in rules, source


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (DEPLOY / "inference.service").read_text()
    path = tmp_path / "inference.service"
    # Another machine need not have the checkout there.
    path.write_text(re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run([verify, "verify", path], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "inference.service" in line]
    assert not [line for line in complaints if "docker.service" not in line], done.stderr
