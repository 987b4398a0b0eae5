"""One daemon a file: absolute numbers written by two would undo each other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from router.storage.connection import StorageError


class Claim:
    """Held from creation until `release`, or until the process ends in whatever way.

    The lock is on a file of its own: to close a second descriptor of the database would drop the
    locks that SQLite has on it.

    Args:
        path: the database file.

    Raises:
        StorageError: another process holds it.
        OSError: the folder cannot be written to, or knows no locks.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(path.name + ".lock")
        self._descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StorageError(
                f"another router uses {path}: stop it, or name another file in ledger.url"
            ) from error

    def release(self) -> None:
        """Let another process have it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
