"""`router check --diff`: compared with what runs, its exit status, and what it never prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli.check import check
from router.config import load
from router.config.snapshot import snapshot_path, write_snapshot

OLD = "services: [{name: a, url: http://a:1, api_key: hunter2}]\nledger: {url: sqlite:///r.db}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file that runs, generation 7, as if started with `--port`."""
    path = tmp_path / "backends.yaml"
    path.write_text(OLD)
    snapshot = snapshot_path(tmp_path / "r.db")
    write_snapshot(snapshot, load(path), generation=7, pinned=["server.port"])
    return path


def run(config: Path, *options: str) -> Result:
    app = typer.Typer()
    app.command()(check)
    folder = ["--state-dir", str(config.parent)]
    return CliRunner().invoke(app, ["--config", str(config), *folder, "--diff", *options])


def test_what_runs_already_is_no_change_and_exits_0(config: Path):
    result = run(config)
    assert result.exit_code == 0
    assert result.stdout.startswith("no change to generation 7, running since ")


def test_a_change_is_printed_alone_and_exits_0(config: Path):
    config.write_text(OLD.replace("a:1", "a:2").replace("hunter2", "hunter3"))
    result = run(config)
    assert result.exit_code == 0
    assert result.stdout == (
        'services.a: replaced (url "http://a:1" -> "http://a:2", api_key changed)\n'
    )
    assert "hunter" not in result.output


def test_a_change_that_would_be_refused_is_marked_and_exits_1(config: Path):
    config.write_text(OLD + "server: {host: 127.0.0.1, max_body_mb: 64}\n")
    result = run(config)
    assert result.exit_code == 1
    host, body = result.stdout.splitlines()
    assert host.startswith('server.host "0.0.0.0" -> "127.0.0.1": refused, needs a restart')
    assert body == "server.max_body_mb 32 -> 64"
    assert "would be refused" in result.stderr


def test_what_the_daemons_command_line_decides_is_no_change(config: Path):
    config.write_text(OLD + "server: {port: 9}\n")
    assert run(config).stdout.startswith("no change")


def test_a_wrong_file_exits_2(config: Path):
    config.write_text("services: 1\n")
    assert run(config).exit_code == 2


def test_without_a_running_daemon_it_says_so_and_exits_2(config: Path):
    snapshot_path(config.parent / "r.db").unlink()
    result = run(config)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "no daemon with this state runs" in result.stderr
    assert "--state-dir" in result.stderr


def test_with_the_ledger_in_memory_it_says_that_nothing_is_kept_and_exits_2(config: Path):
    config.write_text("services: [{name: a, url: http://a:1}]\nledger: {url: 'memory://'}\n")
    result = run(config)
    assert result.exit_code == 2
    assert "memory://: the running configuration is kept beside the state database" in result.stderr
