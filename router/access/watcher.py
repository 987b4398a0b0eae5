"""Keeps the keyring as the state database is, whoever writes to that: a command, another host."""

from __future__ import annotations

import asyncio
import time
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

from router.access.keyring import Keyring
from router.access.known import StoredKeys
from router.log import get_logger
from router.storage import BacklogFull, Database, KeyRow, KeyTable, StorageError

_INTERVAL_S = 0.5
_REPEAT_S = 60.0
# What a disk, or the limits of this process, can be at fault with; all else is a bug.
_EXPECTED = (StorageError, OSError)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was in the file at one time.

    Attributes:
        seen: unequal to an earlier one's if anything may have changed.
        set_aside: damaged files that once were it.
        rows: of the table of keys.
        stored: the same, as the keyring takes it.
    """

    seen: tuple[object, ...]
    set_aside: tuple[Path, ...]
    rows: tuple[KeyRow, ...]
    stored: StoredKeys


class KeyWatcher:
    """Reads the table of keys whenever it changed; all reads are in a thread.

    While the file cannot be read, what was known counts, and it is tried again for ever: a watch
    that ended would let in whoever is revoked. A row that makes no sense counts for nothing, and
    is told of; the others count. Keys that a damaged file took with it while this process ran are
    written into the new one.

    Args:
        keyring: told of what is read.
        database: read, and closed by its owner.
        interval_s: between two looks; a new or revoked key counts a little later than that.
    """

    def __init__(
        self, keyring: Keyring, database: Database, *, interval_s: float = _INTERVAL_S
    ) -> None:
        self._log = get_logger("router.access")
        self._keyring = keyring
        self._database = database
        self._table = KeyTable(database)
        self._interval_s = interval_s
        self._last: _Reading | None = None
        self._failing = False
        self._told_at = 0.0

    async def start(self) -> None:
        """Read once, before the first request; if that fails, `run` goes on trying."""
        await self._look()

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            self._keyring.tell_unlogged(time.time())
            await self._look()

    async def _look(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do better
            self._tell_failing(error)
        else:
            self._tell_readable()

    async def _follow(self) -> None:
        last = self._last
        reading = await asyncio.to_thread(self._read, last)
        if reading is not last:
            self._keyring.refresh_from(reading.stored)
            self._last = reading
            self._tell_faults(reading, last)

    # -- in a thread ---------------------------------------------------------------------------

    def _read(self, last: _Reading | None) -> _Reading:
        set_aside = self._database.set_aside
        if last is not None and set(set_aside) - set(last.set_aside):
            self._restore(last.rows)
        # The connection is another once the file is; equal versions of two files say nothing.
        connection, _ = self._database.change_token()
        seen = (connection, self._table.version(), set_aside)
        if last is not None and seen == last.seen:
            return last
        rows = tuple(self._table.rows())
        if self._database.set_aside != set_aside:
            # The rows may be those of the empty file that comes next.
            raise StorageError(f"{self._database.path} is just being replaced")
        return _Reading(seen, set_aside, rows, StoredKeys.of(rows, lost=bool(set_aside)))

    def _restore(self, rows: tuple[KeyRow, ...]) -> None:
        """Write into a new file what was in the damaged one.

        Raises:
            StorageError: that is not possible now.
        """
        there = self._table.rows()
        taken = {row.id for row in there} | {row.sha256 for row in there}
        missing = [row for row in rows if not {row.id, row.sha256} & taken]
        try:
            writes = [self._table.insert(row) for row in missing]
            unwritten = futures.wait(writes, self._interval_s).not_done
        except BacklogFull as error:
            raise StorageError(str(error)) from error
        for write in unwritten:
            write.cancel()
        if unwritten:
            raise StorageError("keys of the damaged file are not written to the new one yet")

    # -- what is told --------------------------------------------------------------------------

    def _tell_failing(self, error: Exception) -> None:
        """At once, and once a minute while it lasts."""
        failed_before, self._failing = self._failing, True
        now = time.monotonic()
        if failed_before and now - self._told_at < _REPEAT_S:
            return
        self._told_at = now
        unknown = "nobody is let in by a key made with `router keys create`, nor without a key"
        known = "keys count as they were last read"
        self._log.error(
            "keys_unread",
            error=str(error),
            consequence=unknown if self._last is None else known,
            remedy="have the router's user read and write the file and its folder, and have enough"
            " free descriptors; keys in the configuration count all the while",
            exc_info=None if isinstance(error, _EXPECTED) else error,
        )

    def _tell_readable(self) -> None:
        if self._failing:
            self._failing = False
            self._log.warning("keys_read_again")

    def _tell_faults(self, reading: _Reading, last: _Reading | None) -> None:
        told = last.stored.faults if last is not None else {}
        for key_id, fault in reading.stored.faults.items():
            if told.get(key_id) != fault:
                self._log.error(
                    "key_unusable",
                    key_id=key_id,
                    error=fault,
                    consequence="it is refused; the other keys count",
                    remedy="router keys revoke ID, and make another",
                )
