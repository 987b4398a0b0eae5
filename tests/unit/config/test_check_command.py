"""`router check`: its exit status, what it prints, and what it never prints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import typer
from aiohttp import web
from typer.testing import CliRunner, Result

from router.cli.check import check, probe_services
from router.model import ServiceSpec

HASH = "a" * 64


def run(tmp_path: Path, text: str, *options: str) -> Result:
    path = tmp_path / "backends.yaml"
    path.write_text(text)
    app = typer.Typer()
    app.command()(check)
    return CliRunner().invoke(app, ["--config", str(path), *options])


def test_a_right_configuration_is_printed_without_its_secrets_and_exits_0(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        "services:\n"
        "  - {name: chat, url: http://chat:8000, models: [org/m], api_key: geheim, gpu: 3}\n"
        "organizations:\n"
        f"  - {{id: acme, daily_tokens: 12345, keys: [{{id: acme-1, sha256: {HASH}}}]}}\n"
        "routes: [{path: /text2sql, model: org/m}]\n"
        "aliases: {gpt-4o: org/m}\n",
    )
    assert result.exit_code == 0
    for shown in ("chat", "http://chat:8000", "org/m", "acme-1", "12,345", "/text2sql", "gpt-4o"):
        assert shown in result.stdout
    assert "geheim" not in result.output
    assert HASH not in result.output


def test_a_wrong_configuration_exits_2_with_every_problem_on_stderr(tmp_path: Path) -> None:
    result = run(tmp_path, "server: {port: x}\nservices: [{name: a, url: b}]\n")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "server.port",
        "services[0].url",
    ]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_pipe_given_as_the_configuration_is_refused_with_what_would_be_right(
    command: str,
) -> None:
    """As `--config <(…)` and `/dev/stdin` are: `serve` could read it once, and no reload again."""
    ended = subprocess.run(
        [sys.executable, "-m", "router", command, "--config", "/dev/stdin"],
        input="services: [{name: a, url: 'http://a:1'}]\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "/dev/stdin: cannot be read: no regular file, so a reload could not read it again;"
        " name another with --config\n"
    )


def test_a_service_that_refuses_the_probe_exits_1(tmp_path: Path, unused_tcp_port: int) -> None:
    text = f"services: [{{name: a, url: 'http://127.0.0.1:{unused_tcp_port}'}}]\n"
    result = run(tmp_path, text, "--probe")
    assert result.exit_code == 1
    assert "unreachable" in result.stdout
    assert "ssl" not in result.stdout


class Engine:
    """An engine that is asked; each test says how it answers."""

    def __init__(self) -> None:
        self.health = 200
        self.models = b'{"data": [{"id": "org/m"}]}'
        self.models_status = 200
        self.silent = asyncio.Event()
        self.keys: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization"))
        if request.path == "/silent":
            await self.silent.wait()
        if request.path == "/v1/models":
            if self.keys[-1] != "Bearer k":
                return web.Response(status=401)
            return web.Response(status=self.models_status, body=self.models)
        return web.Response(status=self.health)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest_asyncio.fixture
async def url(engine: Engine) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(engine.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    engine.silent.set()
    await runner.cleanup()


async def test_a_probe_tells_latency_and_models_and_carries_the_key(
    engine: Engine, url: str
) -> None:
    (probe,) = await probe_services((ServiceSpec("a", url, "yaml", api_key="k"),), 10)
    assert (probe.state, probe.models, probe.detail) == ("healthy", ("org/m",), "")
    assert probe.latency_ms is not None
    assert engine.keys == ["Bearer k", "Bearer k"]


async def test_a_probe_tells_a_missing_key_and_a_wrong_one(url: str) -> None:
    probes = await probe_services(
        (ServiceSpec("a", url, "yaml"), ServiceSpec("b", url, "yaml", api_key="x")), 10
    )
    assert [(p.state, p.detail) for p in probes] == [
        ("unhealthy", "/v1/models answered 401: its api_key is missing"),
        ("unhealthy", "/v1/models answered 401: its api_key is not the right one"),
    ]


async def test_a_probe_tells_models_that_are_configured_but_not_served(url: str) -> None:
    spec = ServiceSpec("a", url, "yaml", models=("org/m", "org/n"), api_key="k")
    (probe,) = await probe_services((spec,), 10)
    assert probe.detail == "does not serve org/n; it lists: org/m"


async def test_a_model_that_is_configured_but_not_served_is_status_1(
    tmp_path: Path, url: str
) -> None:
    text = f"services: [{{{{name: a, url: '{url}', models: [{{}}], api_key: k}}}}]"
    right = await asyncio.to_thread(run, tmp_path, text.format("org/m"), "--probe")
    typo = await asyncio.to_thread(run, tmp_path, text.format("org/n"), "--probe")
    assert (right.exit_code, typo.exit_code) == (0, 1)


async def test_an_engine_without_a_list_is_healthy_where_models_are_configured(
    engine: Engine, url: str
) -> None:
    engine.models_status = 404
    specs = (
        ServiceSpec("a", url, "yaml", models=("org/m",), api_key="k"),
        ServiceSpec("b", url, "yaml", api_key="k"),
    )
    probes = await probe_services(specs, 10)
    assert [probe.state for probe in probes] == ["healthy", "unhealthy"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data": 1}', b'{"data": []}', b"[" * 100_000]
)
async def test_a_service_that_lists_no_models_is_unhealthy(
    engine: Engine, url: str, body: bytes
) -> None:
    engine.models = body
    (probe,) = await probe_services((ServiceSpec("a", url, "yaml", api_key="k"),), 10)
    assert probe.state == "unhealthy"


async def test_a_list_that_is_not_given_is_told_where_models_are_configured(
    engine: Engine, url: str
) -> None:
    engine.models_status = 429
    spec = ServiceSpec("a", url, "yaml", models=("org/m",), api_key="k")
    (probe,) = await probe_services((spec,), 10)
    assert probe.state == "healthy"
    assert "429" in probe.detail


async def test_a_page_in_place_of_the_list_is_unhealthy_where_models_are_configured(
    engine: Engine, url: str
) -> None:
    engine.models = b"<html>"
    spec = ServiceSpec("a", url, "yaml", models=("org/m",), api_key="k")
    (probe,) = await probe_services((spec,), 10)
    assert probe.state == "unhealthy"


async def test_a_service_whose_health_is_not_200_is_unhealthy(engine: Engine, url: str) -> None:
    engine.health = 503
    (probe,) = await probe_services((ServiceSpec("a", url, "yaml"),), 10)
    assert (probe.state, probe.detail) == ("unhealthy", "/health answers 503")


async def test_a_service_that_does_not_answer_in_time_is_unreachable(url: str) -> None:
    spec = ServiceSpec("a", url, "yaml", health_path="/silent")
    (probe,) = await probe_services((spec,), 0.05)
    assert (probe.state, probe.detail) == ("unreachable", "no answer in time")
