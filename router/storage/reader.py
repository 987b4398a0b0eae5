"""Reading apart from writing: a connection of its own, which waits for no writer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from router.storage.backlog import Row, Value
from router.storage.connection import StorageError, connect_reader, identity


class Reader:
    """Owner of the reading connection; usable from any thread, one at a time.

    Args:
        path: the database file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def read(self, statement: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """The rows of a query, from what is committed.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        with self._lock:
            return self._read(statement, parameters)

    def change_token(self) -> tuple[object, int]:
        """A value that differs from an earlier one once anybody has committed since.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        with self._lock:
            ((version,),) = self._read("PRAGMA data_version", ())
            return self._connection, version

    def close(self) -> None:
        """Give the connection up; a later read opens another."""
        with self._lock:
            self._disconnect()

    def _read(self, statement: str, parameters: Sequence[Value]) -> list[Row]:
        try:
            return self._ready().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            self._disconnect()
            raise StorageError(f"{self._path} cannot be read: {error}") from error

    def _ready(self) -> sqlite3.Connection:
        found = identity(self._path)
        if found != self._identity:
            self._disconnect()
        if self._connection is None:
            self._connection = connect_reader(self._path)
            self._identity = found
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
