"""Commands run in this process, in a folder of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from router.cli.keys import keys_app
from router.cli.usage import usage

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command sets up logging for its process, which here goes on."""
    root, storage = logging.getLogger(), logging.getLogger("router.storage")
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    storage.disabled = False
    structlog.reset_defaults()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run; `backends.yaml` is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backends.yaml").write_text(
        "services: [{name: chat, url: 'http://127.0.0.1:1', models: [org/m]}]\n"
        "organizations:\n"
        "  - id: acme\n"
        "    daily_tokens: 1000\n"
        "    monthly_tokens: null\n"
        f"    keys: [{{id: acme-1, sha256: {'a' * 64}, expires: 2020-01-01}}]\n"
    )
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run `keys …` or `usage …`."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(keys_app)
    app.command()(usage)
    return lambda *arguments: CliRunner().invoke(app, arguments)
