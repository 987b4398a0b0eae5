"""Connections to the file: how one is opened, what its faults mean, what a corrupt one becomes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from router.storage.schema import MIGRATIONS, migrate, version_of

Connect = Callable[[Path], sqlite3.Connection]

_PRIMARY_CODE = 0xFF
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MISTAKES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE})
_BUSY_TIMEOUT_S = 1.0
_COMPANIONS = ("-wal", "-shm")


class StorageError(Exception):
    """The state database cannot be used as asked; the message says why and what would help."""


def path_from_url(url: str) -> Path:
    """The file that `ledger.url` names: `sqlite:///relative.db`, `sqlite:////absolute.db`.

    Raises:
        ValueError: any other URL.
    """
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise ValueError(f"{url!r} is not of the form sqlite:///path/to/file.db")
    return Path(path)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; the file is created for its owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never opened if it is there: closing that descriptor would drop the POSIX locks of every
    # connection that this process has to the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can neither create the file nor write to it."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only = ON")
    # One value that is no UTF-8 must not keep all others from being read.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    return connection


def prepare(connection: sqlite3.Connection, *, check: bool) -> None:
    """Make a fresh connection ready to write: durable, in WAL mode, at the newest version.

    Args:
        connection: what `connect` gave.
        check: look for damage too; reads the whole file.

    Raises:
        sqlite3.Error: the file cannot be used now, or is corrupt (`is_corruption`).
        StorageError: a newer release of the router wrote the file.
    """
    if version_of(connection) > len(MIGRATIONS):
        raise StorageError(
            f"the state database has version {version_of(connection)}, this release knows up to"
            f" {len(MIGRATIONS)}: run the newer release, or name another file in ledger.url"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL would survive a killed process, FULL also survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    # A log that stays small is written over in place: to grow a file costs a quarter more a write.
    connection.execute("PRAGMA wal_autocheckpoint = 64")
    connection.execute("PRAGMA journal_size_limit = 8388608")
    if check:
        _check(connection)
    migrate(connection)


def _check(connection: sqlite3.Connection) -> None:
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        error = sqlite3.DatabaseError(finding)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, so that no retry can help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _CORRUPT


def is_fault(error: Exception) -> bool:
    """Whether the disk or a lock is at fault, so that the same statement may work later."""
    if not isinstance(error, sqlite3.OperationalError):
        return isinstance(error, sqlite3.Error) and is_corruption(error)
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & _PRIMARY_CODE not in _MISTAKES


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file that has this name now, or None."""
    try:
        found = os.stat(path)  # noqa: PTH116 - each write asks
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path) -> Path:
    """Rename a corrupt file, and its journal with it; returns the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_name(f"{path.name}.corrupt-{stamp}-{time.time_ns() % 1_000_000_000:09d}")
    path.rename(target)
    for suffix in _COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return target


def corrupt_copies(path: Path) -> tuple[Path, ...]:
    """The files that were set aside under this name, oldest first.

    Raises:
        OSError: the folder cannot be listed, so nobody knows; `Path.glob` would find none instead.
    """
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - names are enough
    except FileNotFoundError:
        return ()
    begin = f"{path.name}.corrupt-"
    found = (name for name in names if name.startswith(begin))
    return tuple(path.with_name(name) for name in sorted(found) if not name.endswith(_COMPANIONS))
