"""`router serve`: what it says of options that are wrong, and how it ends then."""

from __future__ import annotations

import importlib
import resource
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli.serve import serve


@pytest.fixture(autouse=True)
def limits_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command raises a limit of its process, which here goes on."""
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)


def run(*options: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(serve)
    return CliRunner().invoke(app, options)


@pytest.mark.parametrize("host", ["[::1]", "", "bad host!"])
def test_a_host_that_is_none_is_told_as_in_the_file_and_exits_2(folder: Path, host: str) -> None:
    result = run("--host", host)
    assert result.exit_code == 2
    assert result.stderr == (
        "--host: not an address; write 0.0.0.0, 127.0.0.1, :: or a host name\n"
    )


def test_without_its_extra_otel_says_what_the_readme_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: str) -> None:
        raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")

    monkeypatch.setattr(importlib, "import_module", absent)
    result = run("--otel")
    assert result.exit_code == 2
    assert result.stderr == "--otel needs opentelemetry: pip install '.[otel]'\n"
    readme = Path(__file__).parents[3] / "README.md"
    assert "pip install '.[otel]'" in readme.read_text()
