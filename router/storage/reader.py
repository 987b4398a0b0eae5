"""Reading apart from writing: a connection of its own, which waits for no writer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from router.storage.backlog import Row, Value
from router.storage.connection import StorageError, connect_reader, identity


class ChangeToken(NamedTuple):
    """Where rows came from, to be compared with an earlier one.

    Attributes:
        file: another number once the file is another one, or was away in between.
        connection: what is read through one and the same is all of one file.
        version: another number, on this connection, once anybody has committed.
    """

    file: int
    connection: object
    version: int


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
        self._files = 0

    def read(self, statement: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """The rows of a query, from what is committed.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        with self._lock:
            return self._read(statement, parameters)

    def change_token(self) -> ChangeToken:
        """A value that differs from an earlier one once anybody has committed since.

        Raises:
            StorageError: the file is not there, or cannot be read now.
        """
        with self._lock:
            ((version,),) = self._read("PRAGMA data_version", ())
            return ChangeToken(self._files, self._connection, version)

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
            # None, too: the file that comes next is another one, though it may get the same inode.
            self._identity = found
            self._files += 1
        if self._connection is None:
            self._connection = connect_reader(self._path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
