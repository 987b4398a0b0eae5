"""What every test may use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FINDINGS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FINDINGS] = []


@pytest.fixture(scope="session")
def finding(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something measured that is printed at the end of the run."""
    return request.config.stash[FINDINGS].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = terminalreporter.config.stash[FINDINGS]
    if lines:
        terminalreporter.section("measured")
    for line in lines:
        terminalreporter.line(line)
