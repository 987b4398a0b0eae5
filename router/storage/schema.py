"""The tables, as migrations: `PRAGMA user_version` is how many of them a file has had."""

from __future__ import annotations

import sqlite3

# A migration that was ever released is never edited; what changes is appended as the next one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE usage (
            organization TEXT NOT NULL,
            kind TEXT NOT NULL,
            period TEXT NOT NULL,
            period_start INTEGER NOT NULL,
            period_end INTEGER NOT NULL,
            used INTEGER NOT NULL CHECK (used >= 0),
            open INTEGER NOT NULL CHECK (open >= 0),
            PRIMARY KEY (organization, kind, period, period_start)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            organization TEXT NOT NULL,
            sha256 TEXT NOT NULL UNIQUE,
            prefix TEXT NOT NULL,
            models TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL,
            revoked_at REAL,
            priority INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID
        """,
        # Usage is written many times a second: a poller of keys must not read them all each time.
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
        "INSERT INTO counters VALUES ('keys', 0)",
        """
        CREATE TRIGGER keys_inserted AFTER INSERT ON keys
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'keys'; END
        """,
        """
        CREATE TRIGGER keys_updated AFTER UPDATE ON keys
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'keys'; END
        """,
        """
        CREATE TRIGGER keys_deleted AFTER DELETE ON keys
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'keys'; END
        """,
    ),
    (
        "ALTER TABLE usage ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0)",
        # What was told as reserved until then.
        "UPDATE usage SET reserved = open WHERE open > 0",
    ),
)


def version_of(connection: sqlite3.Connection) -> int:
    """How many migrations the file has had."""
    row: tuple[int] = connection.execute("PRAGMA user_version").fetchone()
    return row[0]


def migrate(
    connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS
) -> None:
    """Bring the file to the newest version, each step in a transaction of its own.

    Two processes may open the file at once: the version is read again under the write lock.
    """
    while version_of(connection) < len(migrations):
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply_next(connection, migrations)
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _apply_next(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...]) -> None:
    version = version_of(connection)
    if version >= len(migrations):
        return
    for statement in migrations[version]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version + 1}")
