"""Keeps the keyring as the state database is, whoever writes to that: a command, another host."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from router.access.keyring import Keyring
from router.access.known import StoredKeys
from router.log import get_logger
from router.storage import BacklogFull, Database, KeyRow, KeyTable, StorageError

_INTERVAL_S = 0.5
_REPEAT_S = 60.0
# What a disk, or the limits of this process, can be at fault with; all else is a bug.
_EXPECTED = (StorageError, OSError)


class _Seen(NamedTuple):
    """Unequal to an earlier one's if anything may have changed.

    Attributes:
        file: another number for another file.
        connection: what it was seen through.
        version: of the table of keys; equal ones of two files say nothing.
        set_aside: damaged files that once were it.
    """

    file: int
    connection: object
    version: int
    set_aside: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was in the file at one time.

    Attributes:
        seen: where that was.
        rows: of the table of keys.
        stored: the same, as the keyring takes it.
    """

    seen: _Seen
    rows: tuple[KeyRow, ...]
    stored: StoredKeys


class KeyWatcher:
    """Reads the table of keys whenever it changed; all reads are in a thread.

    While the file cannot be read, what was known counts, and it is tried again for ever: a watch
    that ended would let in whoever is revoked. A row that makes no sense counts for nothing, and
    is told of; the others count.

    Keys that their file took with it while this process ran, because it was damaged or deleted, are
    written into the one that comes next. A file that has keys of its own was put there, or begun by
    `router keys create`: it counts as it is, for who does that may mean those keys alone.

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

    async def close(self) -> None:
        """Look once more, for a file that was begun by what was written last.

        Else the next start would find it without a key, and let everybody in.
        """
        if self._last is not None and self._last.rows:
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
        seen = self._see()
        if last is None:
            return self._reading(seen)
        if seen == last.seen:
            return last
        if set(seen.set_aside) - set(last.seen.set_aside):
            self._write_back(last.rows, beside=True)
            seen = self._see()
        reading = self._reading(seen)
        if not _is_begun_anew(reading, last):
            return reading
        self._write_back(last.rows, beside=False)
        reading = self._reading(self._see())
        if _is_begun_anew(reading, last):
            raise StorageError(f"{self._database.path} has been begun anew again")
        return reading

    def _see(self) -> _Seen:
        set_aside = self._database.set_aside
        file, connection, _ = self._database.change_token()
        return _Seen(file, connection, self._table.version(), set_aside)

    def _reading(self, seen: _Seen) -> _Reading:
        """The rows of what was just seen.

        Raises:
            StorageError: they may be those of the empty file that comes next.
        """
        rows = tuple(self._table.rows())
        token = self._database.change_token()
        if token.connection is not seen.connection or self._database.set_aside != seen.set_aside:
            raise StorageError(f"{self._database.path} is just being replaced")
        return _Reading(seen, rows, StoredKeys.of(rows, lost=bool(seen.set_aside)))

    def _write_back(self, rows: tuple[KeyRow, ...], *, beside: bool) -> None:
        """Write into a new file what was in the one before, see `KeyTable.write_back`.

        Raises:
            StorageError: that is not possible now.
        """
        try:
            write = self._table.write_back(rows, beside=beside)
        except BacklogFull as error:
            raise StorageError(str(error)) from error
        try:
            written, *_ = write.result(self._interval_s)
        except TimeoutError:
            write.cancel()
            raise StorageError("the known keys are not written to the new file yet") from None
        if written:
            self._log.warning("keys_written_back", count=len(written))

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


def _is_begun_anew(reading: _Reading, last: _Reading) -> bool:
    """Whether this is another file, without keys, in place of one that had some."""
    return bool(last.rows) and not reading.rows and reading.seen.file != last.seen.file
