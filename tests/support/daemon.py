"""The real programs in processes of their own: the daemon, and the simulated engine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from support.http import Response, call

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
METRIC = re.compile(
    r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)", re.MULTILINE
)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One child process with its log in a file; always ended, by its own pid."""

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log_path = log
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "router", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**os.environ, **environment},
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def exit_status(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._child.poll()

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end; its exit status."""
        return self._child.wait(timeout)

    def terminate(self) -> int:
        """SIGTERM, then its exit status; killed if it does not end."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            return self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end on SIGTERM; log:\n{self.log[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()

    def until(self, ready: Callable[[], bool], what: str, timeout: float = START_TIMEOUT_S) -> None:
        """Ask again and again until it is ready; its end or the time's ends the test."""
        deadline = time.monotonic() + timeout
        while not self._asked(ready):
            if self.exit_status is not None:
                raise AssertionError(f"ended with {self.exit_status}; log:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{what}: not in {timeout} s; log:\n{self.log[-4000:]}")
            time.sleep(0.02)

    @staticmethod
    def _asked(ready: Callable[[], bool]) -> bool:
        try:
            return ready()
        except (OSError, AssertionError):
            return False


class Daemon(Process):
    """`router serve` on a free port, its configuration written from a dict.

    Args:
        folder: where `backends.yaml`, the state and the log go.
        config: as in `backends.yaml`; `server.host`, `server.port` and a generous rate limit are
            added.
        healthy: services that must be healthy before this is ready; None: all of them.
        environment: added to this process's own.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        healthy: int | None = None,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.config_path = folder / "backends.yaml"
        self._healthy = len(config.get("services", [])) if healthy is None else healthy
        self.write(config)
        arguments = ["serve", "--config", str(self.config_path), *options]
        super().__init__(arguments, folder / "daemon.log", environment or {})

    def write(self, config: Mapping[str, Any]) -> None:
        """Write the configuration file; a running daemon sees it when it reloads."""
        whole = {
            "limits": {"per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
            **config,
            "server": {**config.get("server", {}), "host": "127.0.0.1", "port": self.port},
        }
        self.config_path.write_text(yaml.safe_dump(whole, sort_keys=False))

    def __enter__(self) -> Self:
        ready = ("GET", "/health/ready")
        self.until(lambda: call(self.port, *ready, timeout=2).status == 200, "ready")
        self.until(lambda: self.healthy_count() >= self._healthy, "services healthy")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        already_ended = self.exit_status is not None
        status = self.terminate()
        if kind is None and not already_ended:
            assert status == 0, f"exit status {status}; log:\n{self.log[-4000:]}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- its pages -------------------------------------------------------------------------------

    def get(self, path: str) -> Response:
        return call(self.port, "GET", path)

    def services(self) -> dict[str, dict[str, Any]]:
        """Rows of `/services` by name."""
        return {row["name"]: row for row in self.get("/services").json["services"]}

    def stats(self) -> dict[str, Any]:
        content: dict[str, Any] = self.get("/stats").json
        return content

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels; 0 when there is none."""
        text = self.get("/metrics").body.decode()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(m["value"])
            for m in METRIC.finditer(text)
            if m["name"] == name and all(w in (m["labels"] or "") for w in wanted)
        )

    def healthy_count(self) -> int:
        return sum(row["healthy"] for row in self.services().values())

    def in_flight(self) -> int:
        """Requests that hold a service now, over all services."""
        return sum(row["in_flight"] for row in self.services().values())

    def until_idle(self, timeout: float = 10) -> None:
        """Wait until no service holds a request."""
        self.until(lambda: self.in_flight() == 0, "in_flight back to zero", timeout)

    # -- its process -----------------------------------------------------------------------------

    @property
    def rss(self) -> int:
        """Resident memory, bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 -- a count of names

    def drain(self) -> None:
        """SIGTERM, and back when it says that it drains."""
        self.signal(signal.SIGTERM)
        self.until(lambda: self.get("/health/ready").status == 503, "draining")


class Engine(Process):
    """`router simulate` on a free port."""

    def __init__(self, folder: Path, model: str, *more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.model = model
        arguments = ["simulate", "--port", str(self.port), "--model", model, *more]
        super().__init__(arguments, folder / f"engine-{self.port}.log", {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.until(lambda: call(self.port, "GET", "/health").status == 200, "engine ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()


def service(name: str, url: str, *models: str, **more: Any) -> dict[str, Any]:
    """One row of `services:`; without models they are asked of the engine."""
    row = {"name": name, "url": url, **more}
    return {**row, "models": list(models)} if models else row
