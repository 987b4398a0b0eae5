"""The state database on a disk that works."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from router.storage import Database, StorageError, StoredWindow, UsageTable, path_from_url
from router.storage.schema import MIGRATIONS, migrate, version_of

DAY = 86_400


def window(
    used: int,
    *,
    organization: str = "acme",
    open: int = 0,  # noqa: A002
    reserved: int = 0,
) -> StoredWindow:
    return StoredWindow(organization, "tokens", "day", 0, DAY, used, open, reserved)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "router.db"


def test_what_is_flushed_is_there_after_reopening(path: Path) -> None:
    """A flushed row is read back by the next process."""
    with Database.open(path) as database:
        UsageTable(database).put([window(7)])
        database.flushed().result(timeout=5)
    with Database.open(path) as database:
        assert UsageTable(database).in_force(0) == [window(7)]


def test_closing_writes_what_is_queued(path: Path) -> None:
    """`close` needs no `flushed` before it."""
    with Database.open(path) as database:
        UsageTable(database).put([window(7)])
    with Database.open(path) as database:
        assert UsageTable(database).in_force(0) == [window(7)]


def test_the_last_row_of_a_key_wins(path: Path) -> None:
    """Rows of one key are coalesced to the newest."""
    with Database.open(path) as database:
        usage = UsageTable(database)
        for used in range(100):
            usage.put([window(used)])
        database.flushed().result(timeout=5)
        assert usage.in_force(0) == [window(99)]


def test_a_row_the_table_refuses_does_not_stop_the_others(path: Path) -> None:
    """One bad row is dropped alone; its neighbours in the transaction are written."""
    with Database.open(path) as database:
        usage = UsageTable(database)
        usage.put([window(1, organization="a"), window(-1), window(2, organization="z")])
        database.flushed().result(timeout=5)
        assert sorted(row.used for row in usage.in_force(0)) == [1, 2]
        assert database.status().healthy


def test_statements_are_applied_together_or_not_at_all(path: Path) -> None:
    """A constraint that the second statement breaks undoes the first, and is told."""
    insert = "INSERT INTO counters VALUES (?, ?)"
    with Database.open(path) as database:
        future = database.execute((insert, ("new", 1)), (insert, ("keys", 1)))
        with pytest.raises(sqlite3.IntegrityError):
            future.result(timeout=5)
        good = database.execute((insert, ("other", 1)))
        good.result(timeout=5)
        names = {name for (name,) in database.read("SELECT name FROM counters")}
        assert names == {"keys", "other"}


def test_a_statement_that_is_wrong_is_the_callers_error(path: Path) -> None:
    """A mistake in SQL fails its own future and is not taken for a fault of the disk."""
    with Database.open(path) as database:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            database.execute(("SELECT * FROM nowhere", ())).result(timeout=5)
        assert database.status().healthy


def test_a_cancelled_call_is_not_run(path: Path) -> None:
    """Cancelling before the writer begins leaves no trace, and the writer lives on."""
    database = Database(path)
    future = database.execute(("INSERT INTO counters VALUES ('cancelled', 1)", ()))
    assert future.cancel()
    with database.start():
        database.flushed().result(timeout=5)
        assert len(database.read("SELECT * FROM counters")) == 1


def test_writes_that_wait_share_a_transaction(path: Path) -> None:
    """Group commit: what was queued before the writer came takes one transaction."""
    database = Database(path)
    futures = [database.flushed() for _ in range(200)]
    UsageTable(database).put([window(1)])
    with database.start():
        for future in futures:
            future.result(timeout=5)
        assert database.status().commits == 1


def test_the_change_token_tells_of_another_connections_write(path: Path) -> None:
    """The token stays while nobody writes, and differs after another opener has written."""
    with Database.open(path) as daemon, Database.open(path, repair=False) as command:
        before = daemon.change_token()
        assert daemon.change_token() == before
        UsageTable(command).put([window(1)])
        command.flushed().result(timeout=5)
        assert daemon.change_token() != before


def test_the_change_token_tells_another_file_from_another_connection(path: Path) -> None:
    """A file that was deleted and begun anew is another one; after a fault of reading it is not."""
    with Database.open(path) as database:
        first = database.change_token()
        with pytest.raises(StorageError):
            database.read("SELECT * FROM nowhere")
        again = database.change_token()
        assert again.connection is not first.connection
        assert again.file == first.file
        for each in path.parent.iterdir():
            each.unlink()
        database.flushed().result(timeout=5)
        assert database.change_token().file != first.file


def test_a_file_that_was_away_when_it_was_looked_for_is_another_one(path: Path) -> None:
    """Even with the inode of the one before: nobody had that open any more."""
    with Database.open(path) as database:
        first = database.change_token()
        path.rename(path.with_name("away"))
        with pytest.raises(StorageError):
            database.change_token()
        path.with_name("away").rename(path)
        assert database.change_token().file != first.file


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """Neither the group nor others may read the hashes of keys."""
    with Database.open(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_has_one_daemon(path: Path) -> None:
    """A second claim is refused until the first is closed; a command needs none."""
    with Database.open(path) as daemon, Database.open(path) as second:
        daemon.claim()
        with pytest.raises(StorageError, match="another router"):
            second.claim()
        second.flushed().result(timeout=5)
        daemon.close()
        second.claim()


def test_a_claim_whose_file_is_deleted_is_taken_again(path: Path) -> None:
    """Once it is renewed a second daemon is refused as before."""
    with Database.open(path) as daemon, Database.open(path) as second:
        daemon.claim()
        assert not daemon.renew_claim()
        path.with_name("router.db.lock").unlink()
        assert daemon.renew_claim()
        assert not daemon.renew_claim()
        with pytest.raises(StorageError, match="another router"):
            second.claim()


def test_a_claim_that_another_took_meanwhile_is_lost_until_that_ends(path: Path) -> None:
    with Database.open(path) as daemon, Database.open(path) as second:
        daemon.claim()
        path.with_name("router.db.lock").unlink()
        second.claim()
        for _ in range(2):
            with pytest.raises(StorageError, match="another router"):
                daemon.renew_claim()
        second.close()
        assert daemon.renew_claim()


def test_a_claim_that_was_given_back_is_not_renewed(path: Path) -> None:
    with Database.open(path) as daemon, Database.open(path) as second:
        daemon.claim()
        daemon.close()
        path.with_name("router.db.lock").unlink()
        assert not daemon.renew_claim()
        second.claim()


def test_opening_again_keeps_the_locks_of_the_first(path: Path) -> None:
    """Another process that closes last does not take the journal from under an open reader."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('SELECT * FROM counters').fetchall(); c.close()"
    )
    with Database.open(path) as first, Database.open(path):
        UsageTable(first).put([window(7)])
        first.flushed().result(timeout=5)
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=30)
        assert path.with_name(path.name + "-wal").exists()


def test_the_file_is_in_wal_mode(path: Path) -> None:
    """Readers do not wait for the writer."""
    with Database.open(path) as database:
        assert database.read("PRAGMA journal_mode") == [("wal",)]


def test_reading_cannot_write(path: Path) -> None:
    """The reading connection refuses a statement that writes."""
    with Database.open(path) as database, pytest.raises(StorageError):
        database.read("DELETE FROM counters")


def test_reading_before_there_is_a_file_is_told(path: Path) -> None:
    """A missing file is a clear error, and is not created by reading."""
    with pytest.raises(StorageError, match="cannot be read"):
        Database(path).read("SELECT 1")
    assert not path.exists()


def test_a_newer_file_is_refused(path: Path) -> None:
    """A file of a newer release is left alone."""
    with Database.open(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StorageError, match="newer release"):
        Database.open(path)
    assert list(path.parent.glob("*.corrupt-*")) == []


def test_migrations_are_applied_from_where_the_file_is(tmp_path: Path) -> None:
    """Only the missing steps run."""
    first = ("CREATE TABLE a (x)",)
    second = ("CREATE TABLE b (x)", "INSERT INTO b VALUES (1)")
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    migrate(connection, (first,))
    connection.execute("INSERT INTO a VALUES (5)")
    migrate(connection, (first, second))
    migrate(connection, (first, second))
    assert version_of(connection) == 2
    assert connection.execute("SELECT a.x, b.x FROM a, b").fetchall() == [(5, 1)]
    connection.close()


def test_a_file_of_the_first_version_tells_what_is_open_as_reserved(path: Path) -> None:
    """As it was told until then; what was used and open stays."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, MIGRATIONS[:1])
    row = "INSERT INTO usage VALUES (?, 'tokens', 'day', 0, 86400, 7, ?)"
    connection.executemany(row, [("acme", 5), ("other", 0)])
    connection.close()
    with Database.open(path) as database:
        assert UsageTable(database).in_force(0) == [
            window(7, open=5, reserved=5),
            window(7, organization="other"),
        ]


def test_after_a_crash_what_was_open_is_used_and_nothing_is_reserved(path: Path) -> None:
    """What was reserved beyond that is charged to nobody."""
    with Database.open(path) as database:
        usage = UsageTable(database)
        usage.put([window(7, open=5, reserved=90), window(1, organization="held", reserved=40)])
        database.flushed().result(timeout=5)
        recovery = usage.recover(since=0, keep_since=0)
        assert recovery.wait(5)
        settled = [window(12), window(1, organization="held")]
        assert recovery.windows() == settled
        assert usage.in_force(0) == settled
        assert recovery.left_open() == [window(7, open=5, reserved=90)]


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    """A step is applied whole or not at all."""
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (("CREATE TABLE a (x)", "CREATE TABEL b (x)"),))
    assert version_of(connection) == 0
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///state/router.db", "state/router.db"), ("sqlite:////var/r.db", "/var/r.db")],
)
def test_the_url_names_a_file(url: str, path: str) -> None:
    """Three slashes are relative, four absolute."""
    assert path_from_url(url) == Path(path)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "redis://host/0", "router.db"])
def test_another_url_is_refused(url: str) -> None:
    """The message says which form would be right."""
    with pytest.raises(ValueError, match="sqlite:///"):
        path_from_url(url)
