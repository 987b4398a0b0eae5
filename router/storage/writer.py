"""The one thread that writes: what is queued becomes one transaction, tried until it succeeds."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path

import msgspec

from router.storage.backlog import Backlog, Batch, Call, Row, Value
from router.storage.connection import (
    Connect,
    StorageError,
    identity,
    is_corruption,
    is_fault,
    prepare,
    set_aside,
)
from router.storage.health import Health

# What a statement itself can be wrong about, beside sqlite3.Error: values that SQLite cannot hold.
_REFUSED = (sqlite3.Error, OverflowError, ValueError)


class Writer:
    """Owner of the writing connection.

    Args:
        path: the database file.
        backlog: where the writes come from.
        health: told of every attempt.
        connect: opens a connection in autocommit mode, usable from another thread.
        retry_s: pause between two attempts while a fault lasts.
        repair: set a corrupt file aside; otherwise corruption is a fault like another.
    """

    def __init__(
        self,
        path: Path,
        backlog: Backlog,
        health: Health,
        connect: Connect,
        *,
        retry_s: float,
        repair: bool,
    ) -> None:
        self._path = path
        self._backlog = backlog
        self._health = health
        self._connect = connect
        self._retry_s = retry_s
        self._repair = repair
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self.generation = 0

    def start(self) -> None:
        """Open the file, which may fail for a while, and begin to write.

        Raises:
            StorageError: this file can never be used.
        """
        try:
            self._open(check=True)
            self._health.usable()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, try once more if that fails, and end."""
        self._backlog.close()
        self._closing.set()
        self._thread.join(timeout_s)

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._backlog.take()) is not None:
            final = self._closing.is_set()
            if self._attempt(batch):
                continue
            if final:
                self._health.abandoned(len(batch))
                _give_up(batch)
                break
            self._closing.wait(self._retry_s)
        self._disconnect()

    def _attempt(self, batch: Batch) -> bool:
        """Commit a batch, or keep it; whether it is on disk."""
        try:
            results = self._commit(batch)
        except (sqlite3.Error, OSError, StorageError) as error:
            self._backlog.put_back()
            self._failed(error)
            return False
        self._backlog.done()
        self._health.succeeded(len(batch))
        for call, result in results:
            _resolve(call, result)
        return True

    def _commit(self, batch: Batch) -> list[tuple[Call, list[list[Row]] | Exception]]:
        connection = self._ready()
        if not batch.calls and len(batch.rows) == 1:  # a statement alone is a transaction, too
            for statement, rows in batch.rows.items():
                self._upsert(connection, statement, rows)
            return []
        connection.execute("BEGIN IMMEDIATE")
        results = [(call, self._run_call(connection, call)) for call in batch.calls if call.start()]
        for statement, rows in batch.rows.items():
            self._upsert(connection, statement, rows)
        connection.execute("COMMIT")
        return results

    def _run_call(self, connection: sqlite3.Connection, call: Call) -> list[list[Row]] | Exception:
        connection.execute("SAVEPOINT call")
        try:
            result = [connection.execute(*each).fetchall() for each in call.statements]
        except _REFUSED as error:
            if is_fault(error):
                raise
            connection.execute("ROLLBACK TO call")
            return error
        finally:
            if connection.in_transaction:
                connection.execute("RELEASE call")
        return result

    def _upsert(
        self,
        connection: sqlite3.Connection,
        statement: str,
        rows: dict[Hashable, Sequence[Value]],
    ) -> None:
        """All rows in one statement: each one of its own would wait for the interpreter's lock."""
        values = list(rows.values())
        try:
            connection.execute(statement, (_json(values),))
        except _REFUSED as error:
            if is_fault(error):
                raise
            if len(values) == 1:
                self._health.dropped(values[0], error)
                return
            for key, row in rows.items():
                self._upsert(connection, statement, {key: row})

    # -- the connection ------------------------------------------------------------------------

    def _ready(self) -> sqlite3.Connection:
        if self._connection is not None and identity(self._path) != self._identity:
            self._health.replaced()
            self._disconnect()
            # The new file may get the old one's inode.
            self._identity = None
        if self._connection is None:
            return self._open(check=False)
        return self._connection

    def _open(self, *, check: bool) -> sqlite3.Connection:
        if identity(self._path) is None:
            # What is created now is another file, though it may get the old one's inode.
            self._identity = None
        connection = self._connect(self._path)
        try:
            prepare(connection, check=check)
        except (sqlite3.Error, StorageError):
            connection.close()
            raise
        found = identity(self._path)
        if found != self._identity:
            self.generation += 1
        self._connection, self._identity = connection, found
        return connection

    def _failed(self, error: Exception) -> None:
        self._disconnect()
        self._health.failed(error, len(self._backlog))
        if self._repair and isinstance(error, sqlite3.Error) and is_corruption(error):
            self._begin_anew(error)

    def _begin_anew(self, error: sqlite3.Error) -> None:
        try:
            self._health.set_aside(set_aside(self._path), error)
            self._open(check=False)
            self._health.usable()
        except (sqlite3.Error, OSError) as another:
            self._health.failed(another, len(self._backlog))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _json(values: list[Sequence[Value]]) -> str:
    return msgspec.json.encode(values).decode()


def _give_up(batch: Batch) -> None:
    for call in batch.calls:
        if call.start():
            call.future.set_exception(StorageError("the state database was closed unwritten"))


def _resolve(call: Call, result: list[list[Row]] | Exception) -> None:
    if isinstance(result, Exception):
        call.future.set_exception(result)
    else:
        call.future.set_result(result)
