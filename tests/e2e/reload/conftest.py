"""A running daemon whose configuration a test changes, and the command that compares with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, service
from support.http import call, chat
from support.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
SEEN_S = 10


class Reloading:
    """A daemon with one service, and what it says of its configuration.

    Attributes:
        config: as the test wrote it last.
    """

    def __init__(self, daemon: Daemon, config: dict[str, Any]) -> None:
        self.daemon = daemon
        self.config = config

    @property
    def health(self) -> dict[str, Any]:
        content: dict[str, Any] = self.daemon.get("/health").json
        return content

    @property
    def generation(self) -> int:
        return int(self.health["generation"])

    @property
    def error(self) -> str | None:
        error: str | None = self.health["last_reload_error"]
        return error

    def answers(self) -> bool:
        """Whether a call gets its answer."""
        return call(self.daemon.port, "POST", PATH, chat()).status == 200

    def write(self, **sections: Any) -> None:
        """Change these sections of the file, and nothing else."""
        self.config |= sections
        self.daemon.write(self.config)

    def write_text(self, text: str) -> None:
        self.daemon.config_path.write_text(text)

    def until_generation(self, number: int, timeout: float = SEEN_S) -> None:
        self.daemon.until(lambda: self.generation >= number, f"generation {number}", timeout)

    def until_refused(self, timeout: float = SEEN_S) -> str:
        """Wait for an error, and give it."""
        self.daemon.until(lambda: self.error is not None, "a refusal", timeout)
        return self.error or ""

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Lines of the daemon's log, of these names."""
        lines = [json.loads(line) for line in self.daemon.log.splitlines()]
        return [line for line in lines if line["event"] in names]

    def check_diff(self, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`router check --diff`, in the daemon's own folder; of another file if given."""
        path = config or self.daemon.config_path
        return subprocess.run(
            [sys.executable, "-m", "router", "check", "--diff", "--config", str(path)],
            cwd=self.daemon.config_path.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def reloading(
    start_daemon: Callable[..., Daemon], upstream: ScriptedUpstream
) -> Callable[..., Reloading]:
    """Start a daemon with the service `a`, its state on disk."""

    def start(**config: Any) -> Reloading:
        whole = {"services": [service("a", upstream.url, "tiny")], **config}
        return Reloading(start_daemon(whole), whole)

    return start
