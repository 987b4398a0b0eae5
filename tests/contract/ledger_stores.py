"""The ledgers under contract, each with the means to end and to begin its process."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from router.ledger import (
    Ledger,
    Limits,
    MemoryLedger,
    SqliteLedger,
    WindowUsage,
    stored_usage,
)
from router.storage import Database

TIMEOUT_S = 20.0


class Store(ABC):
    """A place where usage lives, and the ledger that has it open.

    Attributes:
        durable: what was saved is there after a crash.
        ledger: the one in use.
    """

    durable: bool
    ledger: Ledger

    @abstractmethod
    def checkpoint(self) -> None:
        """Do what goes on in the background every second."""

    @abstractmethod
    def save(self, now: float) -> None:
        """Do what goes on in the background within 100 ms, and wait until it is done."""

    @abstractmethod
    def crash(self, limits: Mapping[str, Limits], now: float) -> None:
        """End the process without a goodbye, and begin the next one."""

    def told(
        self,
        limits: Mapping[str, Limits],
        now: float,
    ) -> dict[str, list[WindowUsage]]:
        """What a command beside the process tells; nothing where there is nothing to read."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


class MemoryStore(Store):
    """Nothing but the process."""

    durable = False

    def __init__(self, folder: Path, limits: Mapping[str, Limits], now: float) -> None:
        self.ledger: MemoryLedger = MemoryLedger(limits)

    def checkpoint(self) -> None:
        self.ledger.checkpoint()

    def save(self, now: float) -> None:
        pass

    def crash(self, limits: Mapping[str, Limits], now: float) -> None:
        self.ledger = MemoryLedger(limits)

    def close(self) -> None:
        pass


class SqliteStore(Store):
    """A file; a crash continues from a copy of it, as the disk has it at that moment."""

    durable = True

    def __init__(self, folder: Path, limits: Mapping[str, Limits], now: float) -> None:
        self._folder = folder
        self._life = 0
        self._open(limits, now)

    def _open(self, limits: Mapping[str, Limits], now: float) -> None:
        self._database = Database.open(self._folder / str(self._life) / "router.db")
        self.ledger: SqliteLedger = SqliteLedger(self._database, limits)
        assert self.ledger.recover(now).wait(TIMEOUT_S)
        self.ledger.flush(now)

    def checkpoint(self) -> None:
        self.ledger.checkpoint()

    def save(self, now: float) -> None:
        self.ledger.flush(now)
        self._database.flushed().result(TIMEOUT_S)

    def crash(self, limits: Mapping[str, Limits], now: float) -> None:
        # What the ledger has not flushed is lost; a copy in the middle of a commit would be torn
        # as no crash of a process tears it.
        self._database.flushed().result(TIMEOUT_S)
        old = self._folder / str(self._life)
        self._life += 1
        shutil.copytree(old, self._folder / str(self._life))
        self._database.close()
        self._open(limits, now)

    def told(self, limits: Mapping[str, Limits], now: float) -> dict[str, list[WindowUsage]]:
        return stored_usage(self._database, limits, now)

    def close(self) -> None:
        self._database.close()


STORES = [MemoryStore, SqliteStore]
