"""The table of usage: one row a window, absolute numbers, so that writing one twice is harmless."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import NamedTuple

from router.storage.backlog import Row
from router.storage.database import Database, columns_from_json

_COLUMNS = "organization, kind, period, period_start, period_end, used, open, reserved"

_UPSERT = f"""
    INSERT INTO usage ({_COLUMNS})
    SELECT {columns_from_json(_COLUMNS)}
    FROM json_each(?) WHERE true
    ON CONFLICT (organization, kind, period, period_start)
    DO UPDATE SET period_end = excluded.period_end, used = excluded.used, open = excluded.open,
                  reserved = excluded.reserved
"""  # noqa: S608

_ENDING_AFTER = f"SELECT {_COLUMNS} FROM usage WHERE period_end > ?"  # noqa: S608
_LEFT_OPEN = f"SELECT {_COLUMNS} FROM usage WHERE open > 0"  # noqa: S608
_SETTLE = """
    UPDATE usage SET used = used + open, open = 0, reserved = 0 WHERE open > 0 OR reserved > 0
"""


class StoredWindow(NamedTuple):
    """Usage of one organization in one window, as it is on disk.

    Attributes:
        organization: whose usage it is.
        kind: `tokens` or `requests`.
        period: `day` or `month`.
        period_start: first second of the window, since the epoch.
        period_end: first second after it.
        used: what is settled.
        open: what unfinished requests had used when they were last looked at: it is charged if
            their process ends without them.
        reserved: what they held then, for telling alone; it is never charged.
    """

    organization: str
    kind: str
    period: str
    period_start: int
    period_end: int
    used: int
    open: int
    reserved: int


class Recovery:
    """What an earlier process left, as soon as the disk gives it.

    Args:
        future: of the statements of `UsageTable.recover`.
    """

    def __init__(self, future: Future[list[list[Row]]]) -> None:
        self._future = future

    def done(self) -> bool:
        """Whether it is known by now."""
        return self._future.done()

    def wait(self, timeout_s: float) -> bool:
        """Block until it is known, but not for longer; whether it is."""
        return bool(wait([self._future], timeout_s).done)

    def left_open(self) -> list[StoredWindow]:
        """The windows that had something open, as they were before that was settled."""
        return [StoredWindow(*row) for row in self._future.result()[0]]

    def windows(self) -> list[StoredWindow]:
        """The windows that were asked for, with everything settled."""
        return [StoredWindow(*row) for row in self._future.result()[-1]]


class UsageTable:
    """Reads and writes of the table.

    Args:
        database: where the table is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, windows: Iterable[StoredWindow]) -> None:
        """Queue the windows' present state, all in one transaction.

        Raises:
            BacklogFull: nothing was queued.
        """
        self._database.put(_UPSERT, {window[:4]: window for window in windows})

    def recover(self, *, since: float, keep_since: float) -> Recovery:
        """Settle what was open when the last process ended, and drop old windows.

        Args:
            since: windows that ended before are not given back, in seconds since the epoch.
            keep_since: windows that ended before are deleted.
        """
        future = self._database.execute(
            (_LEFT_OPEN, ()),
            (_SETTLE, ()),
            ("DELETE FROM usage WHERE period_end < ?", (int(keep_since),)),
            (_ENDING_AFTER, (int(since),)),
        )
        return Recovery(future)

    def in_force(self, now: float) -> list[StoredWindow]:
        """The windows that have not ended, as they are on disk. Blocks.

        Raises:
            StorageError: the file cannot be read now.
        """
        return [StoredWindow(*row) for row in self._database.read(_ENDING_AFTER, (int(now),))]
