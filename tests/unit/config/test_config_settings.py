"""The models: the contract's defaults, and what each kind of value may be."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from router.config import Settings, service_specs
from router.config.fields import parse_expiry, parse_service_url
from router.config.settings import (
    DockerSettings,
    EjectionSettings,
    KeySettings,
    LedgerSettings,
    ServerSettings,
    ServiceSettings,
)
from router.model import ServiceSpec

CONTRACT: dict[str, Any] = {
    "server": {
        "host": "0.0.0.0", "port": 8000, "trusted_proxies": (),
        "status_allow": (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        "admin_key_sha256": None, "header_timeout_s": 10, "body_timeout_s": 60,
        "max_connections": 8192, "request_timeout_s": 300, "idle_timeout_s": 120,
        "drain_timeout_s": 30, "max_body_mb": 32,
        "max_body_memory_mb": 1024,  # the one that is not the contract's
    },
    "health": {
        "interval_s": 30, "timeout_s": 5, "unhealthy_after": 3, "healthy_after": 1,
        "path": "/health", "hung_after_s": 30, "metrics_interval_s": 5,
    },
    "ejection": {"consecutive_failures": 3, "base_s": 5, "max_s": 300},
    "discovery": {
        "docker": {
            "enabled": False, "endpoint": "unix:///var/run/docker.sock",
            "network": "inference-network",
        },
        "files": None,
    },
    "limits": {
        "per_ip": {"requests_per_second": 50, "burst": 100}, "max_queue": 256,
        "queue_timeout_s": 30,
    },
    "ledger": {"url": "sqlite:///state/router.db"},
    "organizations": (), "services": (), "routing": {"policy": "least_load"}, "routes": (),
    "aliases": {},
}  # fmt: skip


def test_the_defaults_are_the_contracts() -> None:
    assert Settings().model_dump() == CONTRACT


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().server.port = 1  # type: ignore[misc]


def test_a_service_becomes_the_spec_that_its_source_publishes() -> None:
    service = ServiceSettings.model_validate(
        {"name": "a", "url": "http://a:1", "gpu": 1, "models": ["m"], "api_key": "k", "weight": 2}
    )
    settings = Settings.model_validate({"services": [service], "health": {"path": "/ping"}})
    assert service_specs(settings) == (
        ServiceSpec(
            name="a", url="http://a:1", source="yaml", models=("m",), api_key="k", group="a",
            gpu="1", weight=2, health_path="/ping",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("http://chat:8000", "http://chat:8000"),
        ("HTTPS://Chat_1.local/", "https://chat_1.local"),
        ("http://[::0001]:80", "http://[::1]:80"),
    ],
)
def test_a_service_url_is_taken_in_normal_form(written: str, normal: str) -> None:
    assert parse_service_url(written) == normal


@pytest.mark.parametrize(
    "url",
    [
        "", "chat:8000", "ftp://a", "http://", "http://a/v1", "http://a?x", "http://a#x", "http://a?",
        "http://u:p@a", "http://a:0", "http://a:99999", "http://a:", "http://a:x", "http://a b",
        "http://[::1", "http://[x]", "http://-a", "http://a\r\nb", "http://é",
    ],
)  # fmt: skip
def test_a_service_url_is_scheme_host_and_port_alone(url: str) -> None:
    with pytest.raises(ValueError, match=r"write http://host:port"):
        parse_service_url(url)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T12:00:00", datetime(2027, 1, 1, 12, tzinfo=UTC)),
        ("2027-01-01T12:00:00+02:00", datetime(2027, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_moment_in_utc(text: str, moment: datetime) -> None:
    assert parse_expiry(text) == moment


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-13-01", "0001-01-01T00:00:00+23:00"])
def test_an_expiry_that_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 2027-01-01"):
        parse_expiry(text)


def test_addresses_and_networks_are_both_networks() -> None:
    server = ServerSettings.model_validate({"trusted_proxies": ["10.1.2.3", "fd00::/8"]})
    assert server.trusted_proxies == (ip_network("10.1.2.3/32"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a/b"}, {"name": ""}, {"name": "a" * 65}, {"name": "a\n"}, {"models": []},
        {"models": [""]}, {"models": ["a b"]}, {"models": ["a\x07"]}, {"weight": 0},
        {"max_concurrency": 0}, {"gpu": ""}, {"api_key": "a\r\nb"}, {"api_key": "ä"},
        {"health_path": "health"}, {"health_path": "/a/../b"}, {"health_path": "/a?b"},
    ],
)  # fmt: skip
def test_a_service_with_a_value_out_of_its_kind_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServiceSettings.model_validate({"name": "a", "url": "http://a"} | wrong)


@pytest.mark.parametrize("digest", ["", "a" * 63, "g" * 64, "a" * 64 + "\n"])
def test_a_key_is_known_by_64_hexadecimal_digits(digest: str) -> None:
    with pytest.raises(ValidationError):
        KeySettings.model_validate({"id": "k", "sha256": digest})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///state/router.db", Path("state/router.db")),
        ("sqlite:////var/lib/router.db", Path("/var/lib/router.db")),
        ("memory://", None),
    ],
)
def test_a_ledger_is_a_file_or_memory(url: str, path: Path | None) -> None:
    assert LedgerSettings(url=url).path == path


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///", "mysql://x", "state/router.db"])
def test_a_ledger_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        LedgerSettings(url=url)


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///./:memory:"])
def test_a_ledger_of_sqlite_in_memory_is_told_how_memory_is_written(url: str) -> None:
    with pytest.raises(
        ValidationError, match=r"each connection would have its own; write memory://"
    ):
        LedgerSettings(url=url)


@pytest.mark.parametrize(
    "endpoint", ["unix:///run/docker.sock", "tcp://filter:2375", "http://[::1]:2375"]
)
def test_a_docker_endpoint_is_a_socket_or_an_address(endpoint: str) -> None:
    assert DockerSettings(endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize("endpoint", ["", "/run/docker.sock", "unix://run", "ssh://a", "tcp://a/b"])
def test_a_docker_endpoint_of_another_kind_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        DockerSettings(endpoint=endpoint)


def test_the_longest_ejection_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ValidationError, match="write max_s: 10 or more"):
        EjectionSettings(base_s=10, max_s=5)


@pytest.mark.parametrize(("host", "normal"), [("::0", "::"), ("localhost", "localhost")])
def test_the_router_listens_on_an_address_or_a_name(host: str, normal: str) -> None:
    assert ServerSettings(host=host).host == normal


@pytest.mark.parametrize("wrong", ["172.16.0.1/12", "10.0.0.0/33", "example.com", "", 7])
def test_what_is_no_network_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate({"trusted_proxies": [wrong]})
