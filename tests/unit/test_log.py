"""How the log looks on a terminal."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from router.log import configure_logging, get_logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(monkeypatch, **environment: str) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configure_logging()
    get_logger("router.test").warning("something", service="a")
    return terminal.getvalue()


@pytest.mark.parametrize("environment", [{"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": ""}])
def test_a_terminal_gets_colours(monkeypatch, environment):
    assert "\x1b[" in logged(monkeypatch, **environment)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_who_wants_no_colours_gets_none(monkeypatch, environment):
    text = logged(monkeypatch, **environment)
    assert "something" in text
    assert "\x1b" not in text
