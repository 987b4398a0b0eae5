"""The table of API keys: hashes alone, never a key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import msgspec

from router.storage.backlog import Row, Value
from router.storage.database import Database, columns_from_json

_COLUMNS = "id, organization, sha256, prefix, models, created_at, expires_at, revoked_at, priority"

# An id or a hash that is there already stays as it is there.
_WRITE_BACK = f"""
    INSERT OR IGNORE INTO keys ({_COLUMNS})
    SELECT {columns_from_json(_COLUMNS)}
    FROM json_each(?) WHERE ? OR NOT EXISTS (SELECT 1 FROM keys)
    RETURNING id
"""  # noqa: S608

_decode_models = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored. Times are seconds since the epoch, UTC.

    Attributes:
        id: unique; names the key to people.
        organization: whose key it is.
        sha256: of the whole key, 64 hexadecimal digits.
        prefix: the key's first characters, to recognise it by.
        models: patterns of the models it may use; empty where the table holds no such list.
        created_at: when it was made.
        expires_at: when it ends by itself; None: never.
        revoked_at: when it was revoked; None: it was not.
        priority: of its requests relative to others.
    """

    id: str
    organization: str
    sha256: str = field(repr=False)
    prefix: str
    models: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    priority: int = 0


class KeyTable:
    """Reads and writes of the table; what a row means is decided elsewhere.

    Args:
        database: where the table is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self) -> list[KeyRow]:
        """Every key, expired and revoked ones too, by organization and age. Blocks.

        Raises:
            StorageError: the file cannot be read now.
        """
        found = self._database.read(
            f"SELECT {_COLUMNS} FROM keys ORDER BY organization, created_at, id"  # noqa: S608
        )
        return [_key_row(row) for row in found]

    def insert(self, row: KeyRow) -> Future[list[list[Row]]]:
        """Add a key; the future fails with `sqlite3.IntegrityError` if its id or hash is there."""
        return self._database.execute(
            (
                f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                _values(row),
            )
        )

    def write_back(self, rows: Iterable[KeyRow], *, beside: bool) -> Future[list[list[Row]]]:
        """Write keys into the file that came after theirs, all or none.

        Args:
            rows: as they were, revoked and expired ones too.
            beside: also where it has keys by now; else only into a table without any, for a file
                with keys of its own is another one on purpose.

        Returns:
            The first result is a row `(id,)` for each that was written.

        Raises:
            BacklogFull: nothing was queued.
        """
        text = msgspec.json.encode([_values(row) for row in rows]).decode()
        return self._database.execute((_WRITE_BACK, (text, int(beside))))

    def revoke(self, key_id: str, now: float) -> Future[list[list[Row]]]:
        """Revoke a key; the first result is one row `(id,)`, or none if no active key has it."""
        return self._database.execute(
            (
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id",
                (now, key_id),
            )
        )

    def version(self) -> int:
        """A number that changes when any process adds, revokes or deletes a key.

        Costs one indexed row. Numbers of two files may be equal: compare
        `Database.generation` too. Blocks.

        Raises:
            StorageError: the file cannot be read now.
        """
        ((version,),) = self._database.read("SELECT value FROM counters WHERE name = 'keys'")
        return int(version)


def _values(row: KeyRow) -> tuple[Value, ...]:
    """In the order of `_COLUMNS`."""
    return (
        row.id,
        row.organization,
        row.sha256,
        row.prefix,
        json.dumps(row.models),
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.priority,
    )


def _key_row(row: Row) -> KeyRow:
    key_id, organization, sha256, prefix, models, *rest = row
    return KeyRow(key_id, organization, sha256, prefix, _models(models), *rest)


def _models(text: str) -> tuple[str, ...]:
    try:
        return _decode_models(text)
    except msgspec.DecodeError:
        return ()  # edited by hand: who decides what a row means refuses this one alone
