"""`router check` and the sources of services beside the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli import check_sources
from router.cli.check import check
from unit.discovery.engine_fakes import FakeEngine, container


def run(tmp_path: Path, text: str, *options: str) -> Result:
    path = tmp_path / "backends.yaml"
    path.write_text(text)
    app = typer.Typer()
    app.command()(check)
    return CliRunner().invoke(app, ["--config", str(path), *options])


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "services.d"
    path.mkdir()
    return path


def test_services_of_files_are_printed(tmp_path, folder):
    (folder / "a.yaml").write_text("- {name: chat-7, url: 'http://chat:8000'}\n")
    result = run(tmp_path, "discovery: {files: services.d}\n")
    assert result.exit_code == 0
    assert "chat-7" in result.stdout


def test_a_bad_file_exits_2_with_its_line_and_key(tmp_path, folder):
    (folder / "a.yaml").write_text("- name: chat\n  url: nonsense\n")
    result = run(tmp_path, "discovery: {files: services.d}\n")
    assert result.exit_code == 2
    assert "a.yaml:2: [0].url:" in result.stderr


def test_a_folder_that_is_not_there_exits_2(tmp_path):
    result = run(tmp_path, "discovery: {files: none.d}\n")
    assert result.exit_code == 2
    assert "none.d cannot be read" in result.stderr


DOCKER = "discovery: {docker: {enabled: true}}\n"


def test_without_a_probe_docker_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(check_sources, "DockerEngine", None)
    result = run(tmp_path, DOCKER)
    assert result.exit_code == 0
    assert "--probe asks for them" in result.stdout


def test_an_engine_that_does_not_answer_exits_1(tmp_path):
    text = f"discovery: {{docker: {{enabled: true, endpoint: 'unix://{tmp_path}/none.sock'}}}}\n"
    result = run(tmp_path, text, "--probe")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


def test_containers_and_what_is_wrong_with_them_are_printed(tmp_path, monkeypatch):
    bad = container(2, labels={"router.port": "x"}, name="bad-one")
    good = container(1, labels={"router.name": "chat-9"})
    monkeypatch.setattr(check_sources, "DockerEngine", lambda _: FakeEngine(good, bad))
    result = run(tmp_path, DOCKER + "health: {timeout_s: 0.05}\n", "--probe")
    assert result.exit_code == 1
    assert "chat-9" in result.stdout
    assert "container bad-one: router.port: must be a whole number" in result.stderr


def test_a_file_with_another_ending_of_yaml_is_warned_of(tmp_path, folder):
    (folder / "a.yml").write_text("- {name: chat-7, url: 'http://chat:8000'}\n")
    result = run(tmp_path, "discovery: {files: services.d}\n")
    assert result.exit_code == 0
    assert "a.yml is not read: name it a.yaml" in result.stderr
