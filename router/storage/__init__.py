"""SQLite for what must outlive the process: one writer thread, separate readers, no waiting loop.

    database = Database.open(Path("state/router.db"))   # creates, migrates, survives a bad disk
    database.claim()                                    # a daemon's: StorageError if it has one
    database.put(UPSERT, {key: row, ...})               # rows; the last one of a key wins
    future = database.execute((sql, parameters), ...)   # one transaction; rows of each statement
    database.flushed().result(timeout=5)                # everything handed over so far is on disk
    rows = database.read(sql, parameters)               # what is on disk; blocks, so: in a thread
    token = database.change_token()                     # differs once anybody has written the file
    database.status()                                   # healthy, lag_s, last_error, backlog
    database.close()

`put`, `execute` and `flushed` never touch the disk: the writer thread commits whatever is queued
as one transaction, at once when it is idle, so that a burst shares one `fsync`. While the disk is
full, locked or read-only the queue is kept in memory (bounded: rows are coalesced by key), an alarm
is logged, and everything is written when the fault ends; a future of `execute` is pending so long.

`KeyTable(database)` is the table of API keys (`rows()`, `insert()`, `revoke()`, and `version()`,
which changes when any process changes a key); `UsageTable(database)` holds the ledger's windows.

A file that is deleted under way is begun anew by the next write. One that is corrupt is renamed to
`NAME.corrupt-TIME` first. Its keys are gone then: who still knows them writes them into the new
file (`KeyTable.write_back`). After a start nobody does, so whoever serves without keys must look at
`database.set_aside` first: while it names such a file, "there are no keys" does not mean that
nobody ever made one.
"""

from __future__ import annotations

from router.storage.backlog import BacklogFull
from router.storage.connection import StorageError, path_from_url
from router.storage.database import Database
from router.storage.health import StorageStatus
from router.storage.keys import KeyRow, KeyTable
from router.storage.reader import ChangeToken
from router.storage.usage import Recovery, StoredWindow, UsageTable

__all__ = [
    "BacklogFull",
    "ChangeToken",
    "Database",
    "KeyRow",
    "KeyTable",
    "Recovery",
    "StorageError",
    "StorageStatus",
    "StoredWindow",
    "UsageTable",
    "path_from_url",
]
