"""The state database as the rest of the router sees it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from router.storage.backlog import Backlog, Call, Row, Statement, Value
from router.storage.claim import Claim
from router.storage.connection import Connect, connect, corrupt_copies
from router.storage.health import Health, StorageStatus
from router.storage.reader import ChangeToken, Reader
from router.storage.writer import Writer

_CAPACITY = 50_000


def columns_from_json(columns: str) -> str:
    """What selects columns, listed with commas, from the rows of a `json_each`."""
    return ", ".join(f"json_extract(value, '$[{n}]')" for n in range(columns.count(",") + 1))


class Database:
    """An open file: `put` and `execute` hand writes over, `read` reads. Usable from any thread.

    Args:
        path: the file; it and its folder are created.
        repair: set a corrupt file aside and begin a new one. For the daemon; a command beside
            it must not move the file that the daemon is writing to.
        connect: opens the writing connection.
        retry_s: pause in seconds between two attempts while a fault lasts.
        capacity: most rows and calls kept in memory.
    """

    def __init__(
        self,
        path: Path,
        *,
        repair: bool = True,
        connect: Connect = connect,
        retry_s: float = 0.5,
        capacity: int = _CAPACITY,
    ) -> None:
        self.path = path
        self._backlog = Backlog(capacity)
        self._health = Health(path)
        self._reader = Reader(path)
        self._claim: Claim | None = None
        self._writer = Writer(
            path, self._backlog, self._health, connect, retry_s=retry_s, repair=repair
        )

    @classmethod
    def open(cls, path: Path, *, repair: bool = True) -> Database:
        """Open a file and start its writer. A disk that fails now is tried again, not raised.

        Raises:
            StorageError: a newer release of the router wrote the file.
        """
        return cls(path, repair=repair).start()

    def start(self) -> Database:
        """Open the file and start the writer thread; returns itself."""
        self._writer.start()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def generation(self) -> int:
        """Grows when a new file is begun, whose rows are those that are put from then on."""
        return self._writer.generation

    @property
    def set_aside(self) -> tuple[Path, ...]:
        """Corrupt files that once had this file's name and still lie beside it.

        Raises:
            OSError: the folder cannot be listed now.
        """
        return corrupt_copies(self.path)

    def claim(self) -> None:
        """Be the only daemon of this file, until `close`; commands beside it do not claim.

        Raises:
            StorageError: another process has claimed it.
            OSError: the disk is at fault.
        """
        self._claim = Claim(self.path)

    def renew_claim(self) -> bool:
        """Have the claim still, or again: whoever deletes its file would let a second daemon in.

        Returns:
            Whether it had to be taken.

        Raises:
            StorageError: another process has claimed it.
            OSError: the disk is at fault.
        """
        if self._claim is None:
            self.claim()
            return True
        return self._claim.renew()

    def put(self, statement: str, rows: Mapping[Hashable, Sequence[Value]]) -> None:
        """Queue rows; the last row of a key is the one that is written.

        Args:
            statement: an upsert whose one parameter is a JSON array of rows.
            rows: by a key that is unique within the statement.

        Raises:
            BacklogFull: nothing was queued.
        """
        self._backlog.put(statement, rows)

    def execute(self, *statements: Statement) -> Future[list[list[Row]]]:
        """Queue statements that are applied together or not at all.

        Returns:
            The rows of each statement, once they are on disk; an error of the statements
            themselves (a constraint) is the future's. It stays pending while the disk is at fault.

        Raises:
            BacklogFull: nothing was queued.
        """
        call = Call(statements)
        self._backlog.call(call)
        return call.future

    def flushed(self) -> Future[list[list[Row]]]:
        """Done once everything that was queued before is on disk."""
        return self.execute()

    def read(self, statement: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """The rows of a query, from what is on disk. Blocks: call it in a thread.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        return self._reader.read(statement, parameters)

    def change_token(self) -> ChangeToken:
        """A value to compare with an earlier one: unequal once any process has written since.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        return self._reader.change_token()

    def status(self) -> StorageStatus:
        """How the disk is doing, now."""
        return StorageStatus(
            healthy=self._health.healthy,
            lag_s=self._backlog.lag_s(),
            last_error=self._health.last_error,
            backlog=len(self._backlog),
            commits=self._health.commits,
        )

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is queued and close the file; what a failing disk refuses now is lost.

        Returns:
            Whether every row that was `put` is on disk.
        """
        self._writer.close(timeout_s)
        self._reader.close()
        if self._claim is not None:
            self._claim.release()
        return not self._backlog.has_rows()
