"""The table of keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.storage import Database, KeyRow, KeyTable, StoredWindow, UsageTable

ROW = KeyRow(
    id="acme-1",
    organization="acme",
    sha256="9f" * 32,
    prefix="sk-AbCd",
    models=("Qwen/*", "chat"),
    created_at=1_000.5,
    expires_at=2_000.0,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "r.db") as database:
        yield database


def test_a_key_is_read_as_it_was_written(database: Database) -> None:
    """Every column goes there and back."""
    keys = KeyTable(database)
    keys.insert(ROW).result(timeout=5)
    assert keys.rows() == [ROW]


@pytest.mark.parametrize("again", [replace(ROW, id="other"), replace(ROW, sha256="00" * 32)])
def test_ids_and_hashes_are_unique(database: Database, again: KeyRow) -> None:
    """A second key of the same id or hash is refused."""
    keys = KeyTable(database)
    keys.insert(ROW).result(timeout=5)
    with pytest.raises(sqlite3.IntegrityError):
        keys.insert(again).result(timeout=5)


def test_revoking_counts_once(database: Database) -> None:
    """The first revocation's time stays; revoking again, or what is not there, finds nothing."""
    keys = KeyTable(database)
    keys.insert(ROW).result(timeout=5)
    assert keys.revoke("acme-1", 1_500.0).result(timeout=5) == [[("acme-1",)]]
    assert keys.revoke("acme-1", 1_600.0).result(timeout=5) == [[]]
    assert keys.revoke("nobody", 1_600.0).result(timeout=5) == [[]]
    assert keys.rows() == [replace(ROW, revoked_at=1_500.0)]


def test_the_version_changes_with_keys_alone(tmp_path: Path, database: Database) -> None:
    """Another process's key changes it, usage does not."""
    keys = KeyTable(database)
    with Database.open(tmp_path / "r.db", repair=False) as command:
        versions = [keys.version()]
        KeyTable(command).insert(ROW).result(timeout=5)
        versions.append(keys.version())
        KeyTable(command).revoke(ROW.id, 1.0).result(timeout=5)
        versions.append(keys.version())
        assert len(set(versions)) == 3
        UsageTable(command).put([StoredWindow("acme", "tokens", "day", 0, 86_400, 1, 0, 0)])
        command.flushed().result(timeout=5)
        assert keys.version() == versions[-1]


OTHERS = [replace(ROW, id=f"acme-{n}", sha256=f"{n:064x}", revoked_at=1.5) for n in (2, 3)]


@pytest.mark.parametrize("beside", [True, False])
def test_keys_are_written_back_as_they_were(database: Database, *, beside: bool) -> None:
    """With expiry, scope and revocation; a second time changes nothing."""
    keys = KeyTable(database)
    written = keys.write_back([ROW, *OTHERS], beside=beside).result(timeout=5)
    assert written == [[("acme-1",), ("acme-2",), ("acme-3",)]]
    assert keys.write_back([ROW, *OTHERS], beside=beside).result(timeout=5) == [[]]
    assert keys.rows() == [ROW, *OTHERS]


def test_nothing_is_written_back_into_a_table_that_has_keys(database: Database) -> None:
    keys = KeyTable(database)
    keys.insert(ROW).result(timeout=5)
    assert keys.write_back(OTHERS, beside=False).result(timeout=5) == [[]]
    assert keys.rows() == [ROW]


def test_what_is_written_back_beside_others_changes_none_of_them(database: Database) -> None:
    """A key that was revoked meanwhile stays revoked."""
    keys = KeyTable(database)
    revoked = replace(ROW, revoked_at=1_600.0)
    keys.insert(revoked).result(timeout=5)
    keys.write_back([ROW, *OTHERS], beside=True).result(timeout=5)
    assert keys.rows() == [revoked, *OTHERS]


def test_the_hash_is_not_in_the_repr() -> None:
    """A key row may be logged."""
    assert ROW.sha256 not in repr(ROW)
