"""Engines that are lost in every way, as processes of their own."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Self

from support.daemon import Engine, Process
from support.http import call

SPEED = ("--decode-tokens-per-s", "12", "--answer-tokens", "2000", "--batch-slowdown", "0.001")


class LostEngine(Engine):
    """`router simulate` that can be killed, stopped, and started again on its port."""

    def __init__(self, folder: Path, model: str = "tiny", *more: str) -> None:
        self._more = (*SPEED, *more)
        self._folder = folder
        self._stopped = False
        super().__init__(folder, model, *self._more)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._stopped = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._stopped = False
        self.signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again after it was killed."""
        arguments = ["simulate", "--port", str(self.port), "--model", self.model, *self._more]
        Process.__init__(self, arguments, self._folder / f"engine-{self.port}.log", {})

    def answers(self) -> bool:
        try:
            return call(self.port, "GET", "/health", timeout=2).status == 200
        except (OSError, AssertionError):
            return False

    def post(self, path: str) -> int:
        """Status of a POST to one of its development paths."""
        return call(self.port, "POST", path).status

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stopped:
            self.thaw()
        if self.exit_status is None:
            self.terminate()
