"""Whether writes reach the disk, told in the log when that changes and readable at any time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from router.log import get_logger

_REPEAT_S = 60.0


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What metrics and `/health` may tell of the state database.

    Attributes:
        healthy: the last attempt to write succeeded.
        lag_s: age in seconds of the oldest write that is not on disk, 0 without one.
        last_error: why the last failed attempt failed; None when none ever did.
        backlog: rows and calls that are not on disk.
        commits: transactions since the start.
    """

    healthy: bool
    lag_s: float
    last_error: str | None
    backlog: int
    commits: int


class Health:
    """The writer thread's record of its own attempts; it alone changes it.

    Args:
        path: the file, for the log.
    """

    def __init__(self, path: Path) -> None:
        self._log = get_logger("router.storage").bind(path=str(path))
        self._failing_since: float | None = None
        self._told_at = 0.0
        self.last_error: str | None = None
        self.commits = 0

    @property
    def healthy(self) -> bool:
        """Whether the last attempt succeeded."""
        return self._failing_since is None

    def failed(self, error: Exception, backlog: int) -> None:
        """An attempt failed; told at once, and once a minute while it lasts."""
        now = time.monotonic()
        first = self._failing_since is None
        if self._failing_since is None:
            self._failing_since = now
        self.last_error = f"{type(error).__name__}: {error}"
        if first or now - self._told_at >= _REPEAT_S:
            self._told_at = now
            self._log.error(
                "storage_degraded",
                error=self.last_error,
                backlog=backlog,
                failing_s=round(now - self._failing_since, 1),
                consequence="serving goes on; usage is kept in memory alone until this ends",
            )

    def succeeded(self, written: int) -> None:
        """A transaction is on disk."""
        self.commits += 1
        self.usable(written)

    def usable(self, written: int = 0) -> None:
        """The file can be used (again)."""
        if self._failing_since is not None:
            failing_s = round(time.monotonic() - self._failing_since, 1)
            self._failing_since = None
            self._log.warning("storage_recovered", failing_s=failing_s, written=written)

    def dropped(self, row: object, error: Exception) -> None:
        """A row that the tables refuse: a fault of the program, kept from stopping the others."""
        self._log.error("storage_row_refused", row=row, error=str(error))

    def set_aside(self, target: Path, error: Exception) -> None:
        """The file was corrupt and has another name now."""
        self._log.critical(
            "storage_corrupt",
            error=str(error),
            set_aside=str(target),
            consequence="a new file is begun: keys made with `router keys create` are gone from"
            " it, and usage is what memory holds",
            remedy=f"sqlite3 {target} .recover shows what can be saved",
        )

    def replaced(self) -> None:
        """Somebody moved or deleted the file while it was open."""
        self._log.error("storage_file_replaced", consequence="a new file is begun")

    def abandoned(self, backlog: int) -> None:
        """The end of the process comes before the end of the fault."""
        self._log.critical("storage_lost", backlog=backlog, error=self.last_error)
