"""One daemon a file: absolute numbers written by two would undo each other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from router.storage.connection import StorageError, identity


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
        self._path = path
        self._name = path.with_name(path.name + ".lock")
        self._descriptor = self._taken()

    def renew(self) -> bool:
        """Take it again if its file was deleted or replaced: whoever comes would find it free.

        Returns:
            Whether that was so.

        Raises:
            StorageError: another process has come first.
            OSError: the folder cannot be written to.
        """
        if self._descriptor < 0 or self._is_in_place():
            return False
        lost, self._descriptor = self._descriptor, self._taken()
        os.close(lost)
        return True

    def release(self) -> None:
        """Let another process have it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _is_in_place(self) -> bool:
        held = os.fstat(self._descriptor)
        return identity(self._name) == (held.st_dev, held.st_ino)

    def _taken(self) -> int:
        descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            raise StorageError(
                f"another router uses {self._path}: stop it, or name another file in ledger.url"
            ) from error
        return descriptor
