"""Containers of a real engine, by its command line; what is made here is taken away again."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

IMAGE = os.environ.get("DOCKER_BASE_IMAGE", "router-test/python-base:local")
SERVER = Path(__file__).parent / "tiny_engine.py"
MODEL = "tiny"


class Docker:
    """One engine, and what a test makes there.

    Args:
        host: as DOCKER_HOST.

    Attributes:
        host: see above.
        run_id: in the names and labels of all that is made.
        network: of its own, made at the start.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.run_id = uuid.uuid4().hex[:8]
        self.network = f"router-test-{self.run_id}"

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 60) -> str:
        """Run `docker …`; what it printed, without white space at its end."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": self.host},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(arguments[:4])}…: {done.stderr.strip()}")
        return done.stdout.strip()

    def __enter__(self) -> Self:
        self("network", "create", self.network)
        return self

    def __exit__(self, *_: object) -> None:
        made = self("ps", "-aq", "--filter", f"label=router-test={self.run_id}", check=False)
        if made:
            self("rm", "-f", *made.split(), check=False, timeout=120)
        self("network", "rm", self.network, check=False)

    def engine(
        self,
        name: str,
        *options: str,
        labels: dict[str, str] | None = None,
        delay_s: float = 0,
        verb: str = "run",
    ) -> str:
        """Start a tiny engine that answers after `delay_s`; its container's identifier.

        Labels of the router are written without their `router.`; `enable` is added.
        """
        marks = {"router-test": self.run_id}
        marks |= {
            f"router.{key}": value for key, value in {"enable": "true", **(labels or {})}.items()
        }
        flags = [part for key, value in marks.items() for part in ("--label", f"{key}={value}")]
        if not any(option.startswith("--network") for option in options):
            flags += ["--network", self.network]
        detach = ["-d"] if verb == "run" else []
        command = ["python3", "-c", SERVER.read_text(), str(delay_s)]
        return self(
            verb,
            *detach,
            "--init",
            "--name",
            f"{name}-{self.run_id}",
            *flags,
            *options,
            IMAGE,
            *command,
        )

    def labelled(self) -> set[str]:
        """Names of this test's running containers that carry the label, as `docker ps` says."""
        rows = self(
            "ps",
            "--filter", f"label=router-test={self.run_id}",
            "--filter", "label=router.enable=true",
            "--filter", "status=running",
            "--format", "{{.Names}}",
        )  # fmt: skip
        return set(rows.split())


def until(ready: Callable[[], bool], what: str, timeout: float = 20) -> float:
    """Ask again and again until it is so; the seconds that it took."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > timeout:
            raise AssertionError(f"{what}: not in {timeout} s")
        time.sleep(0.01)
    return time.monotonic() - began
