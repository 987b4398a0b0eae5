"""The state database on a disk that fails: nothing stops, nothing is forgotten, it is told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.storage import BacklogFull, Database, StoredWindow, UsageTable
from router.storage.connection import connect

RETRY_S = 0.01


def window(used: int, organization: str = "acme") -> StoredWindow:
    return StoredWindow(organization, "tokens", "day", 0, 86_400, used, 0, 0)


class Disk:
    """Opens connections that fail while `error` is set; counts the failures."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.failed = threading.Event()

    def connect(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, *args: object) -> sqlite3.Cursor:
                if disk.error is not None:
                    disk.failed.set()
                    raise sqlite3.OperationalError(disk.error)
                return super().execute(*args)  # type: ignore[arg-type]

        return sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Connection
        )


def wait_until(condition: Callable[[], bool]) -> None:
    turn = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        turn.wait(0.005)
    raise AssertionError("the condition did not come true within 10 s")


@pytest.mark.parametrize(
    "error",
    ["database or disk is full", "database is locked", "attempt to write a readonly database"],
)
def test_a_fault_keeps_the_newest_rows_and_writes_them_when_it_ends(
    tmp_path: Path, error: str
) -> None:
    """During the fault: unhealthy, lagging, told. After it: every key's last row on disk."""
    disk = Disk()
    with (
        capture_logs() as logs,
        Database(tmp_path / "r.db", connect=disk.connect, retry_s=RETRY_S).start() as database,
    ):
        usage = UsageTable(database)
        disk.error = error
        usage.put([window(1), window(1, "other")])
        wait_until(lambda: not database.status().healthy)
        usage.put([window(2)])
        status = database.status()
        assert status.lag_s > 0
        assert status.backlog >= 2
        assert error in (status.last_error or "")
        disk.error = None
        database.flushed().result(timeout=10)
        assert set(usage.in_force(0)) == {window(2), window(1, "other")}
        wait_until(lambda: database.status().healthy)
        assert database.status().lag_s == 0
        assert database.status().backlog == 0
    assert [each["event"] for each in logs] == ["storage_degraded", "storage_recovered"]


def test_a_full_file_is_such_a_fault(tmp_path: Path) -> None:
    """SQLite's own SQLITE_FULL, not a simulated one."""
    pages = ["PRAGMA max_page_count = 12"]

    def connect_small(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        for each in pages:
            connection.execute(each)
        return connection

    path = tmp_path / "r.db"
    with Database(path, connect=connect_small, retry_s=RETRY_S).start() as database:
        usage = UsageTable(database)
        usage.put([window(n, f"organization-{n:04}") for n in range(1_000)])
        wait_until(lambda: not database.status().healthy)
        assert "full" in (database.status().last_error or "")
        pages.clear()
        database.flushed().result(timeout=10)
        assert len(usage.in_force(0)) == 1_000


def test_a_lock_held_by_another_is_waited_out(tmp_path: Path) -> None:
    """Another process's open write transaction delays the rows, and loses none."""
    path = tmp_path / "r.db"

    def impatient(name: Path) -> sqlite3.Connection:
        connection = connect(name)
        connection.execute("PRAGMA busy_timeout = 1")
        return connection

    with Database(path, connect=impatient, retry_s=RETRY_S).start() as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        usage = UsageTable(database)
        usage.put([window(5)])
        wait_until(lambda: not database.status().healthy)
        assert "locked" in (database.status().last_error or "")
        other.execute("COMMIT")
        other.close()
        database.flushed().result(timeout=10)
        assert usage.in_force(0) == [window(5)]


def test_a_disk_that_fails_at_start_does_not_stop_the_start(tmp_path: Path) -> None:
    """The file is opened and migrated when the fault ends."""
    disk = Disk()
    disk.error = "unable to open database file"
    with Database(tmp_path / "r.db", connect=disk.connect, retry_s=RETRY_S).start() as database:
        assert not database.status().healthy
        usage = UsageTable(database)
        usage.put([window(3)])
        disk.error = None
        database.flushed().result(timeout=10)
        assert usage.in_force(0) == [window(3)]


def test_an_answered_call_was_applied_once(tmp_path: Path) -> None:
    """A call that meets a fault is run again, and only its committed run counts."""
    disk = Disk()
    with Database(tmp_path / "r.db", connect=disk.connect, retry_s=RETRY_S).start() as database:
        disk.error = "disk I/O error"
        future = database.execute(("UPDATE counters SET value = value + 1", ()))
        assert disk.failed.wait(10)
        assert not future.done()
        disk.error = None
        future.result(timeout=10)
        assert database.read("SELECT value FROM counters") == [(1,)]


def test_the_backlog_is_bounded(tmp_path: Path) -> None:
    """Keys that wait already are always taken; new ones are refused when the place is used up."""
    database = Database(tmp_path / "r.db", capacity=2)
    usage = UsageTable(database)
    usage.put([window(1), window(1, "other")])
    usage.put([window(2)])
    with pytest.raises(BacklogFull):
        usage.put([window(1, "third")])
    with pytest.raises(BacklogFull):
        database.flushed()
    assert database.status().backlog == 2


def test_closing_during_a_fault_ends_and_tells_what_is_lost(tmp_path: Path) -> None:
    """`close` does not hang, a waiting caller gets an error, and the log says what is gone."""
    disk = Disk()
    with capture_logs() as logs:
        database = Database(tmp_path / "r.db", connect=disk.connect, retry_s=60).start()
        disk.error = "database or disk is full"
        future = database.flushed()
        database.close()
    assert future.exception(timeout=5) is not None
    assert any(each["event"] == "storage_lost" for each in logs)
    with pytest.raises(BacklogFull, match="closed"):
        database.flushed()


@pytest.mark.parametrize("garbage", [b"this is not a database" * 500, None])
def test_a_corrupt_file_is_set_aside(tmp_path: Path, garbage: bytes | None) -> None:
    """Damage of the header or of a page: renamed, told, and a new file is begun."""
    path = tmp_path / "r.db"
    with Database.open(path) as database:
        UsageTable(database).put([window(n, f"organization-{n:04}") for n in range(1_000)])
    whole = path.read_bytes()
    path.write_bytes(garbage or whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with capture_logs() as logs, Database.open(path) as database:
        assert database.status().healthy
        assert UsageTable(database).in_force(0) == []
        (aside,) = database.set_aside
        assert aside.name.startswith("r.db.corrupt-")
    assert "storage_corrupt" in [each["event"] for each in logs]


def test_a_command_does_not_move_a_corrupt_file(tmp_path: Path) -> None:
    """Without `repair` the file stays where the daemon has it."""
    path = tmp_path / "r.db"
    path.write_bytes(b"this is not a database" * 500)
    with Database.open(path, repair=False) as database:
        assert not database.status().healthy
    assert list(tmp_path.glob("*.corrupt-*")) == []


def test_a_file_that_is_deleted_is_begun_anew(tmp_path: Path) -> None:
    """Writing goes on in a file that has the name, and the generation tells owners to put again."""
    path = tmp_path / "r.db"
    with Database.open(path) as database:
        usage = UsageTable(database)
        before = database.generation
        for each in tmp_path.iterdir():
            each.unlink()
        usage.put([window(4)])
        database.flushed().result(timeout=10)
        assert database.generation == before + 1
        assert usage.in_force(0) == [window(4)]


def test_a_file_that_is_deleted_during_a_fault_is_another_one_afterwards(tmp_path: Path) -> None:
    """Nobody has it open then, so the new one may get its inode; the generation grows even so."""
    disk = Disk()
    path = tmp_path / "r.db"
    with Database(path, connect=disk.connect, retry_s=RETRY_S).start() as database:
        before = database.generation
        disk.error = "disk I/O error"
        future = database.flushed()
        wait_until(lambda: not database.status().healthy)
        inode = path.stat().st_ino
        path.unlink()
        for each in tmp_path.iterdir():
            each.unlink()
        disk.error = None
        future.result(timeout=10)
        if path.stat().st_ino != inode:
            pytest.skip("this file system did not give the same inode again")
        assert database.generation == before + 1
