"""The keyring follows the state database, whoever writes to it, and whatever happens to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.access.keyring import Keyring
from router.access.secret import digest_of
from router.access.watcher import KeyWatcher
from router.errors import InvalidApiKey
from router.storage import BacklogFull, Database, KeyRow, KeyTable, StorageError
from router.storage.connection import set_aside

KEY = "sk-made-by-a-command"
ROW = KeyRow("acme-1", "acme", digest_of(KEY).hex(), "sk-made", ("*",), 1_000.0)
OTHER = replace(ROW, id="acme-2", sha256="02" * 32, revoked_at=1_500.0, models=("a", "b/*"))
LIVENESS_S = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "router.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as database:
        yield database


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    with capture_logs() as lines:
        yield lines


@asynccontextmanager
async def watched(database: Database, interval_s: float = 0.01) -> AsyncIterator[Keyring]:
    keyring = Keyring(stored=True)
    watcher = KeyWatcher(keyring, database, interval_s=interval_s)
    await watcher.start()
    task = asyncio.create_task(watcher.run())
    try:
        yield keyring
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def bad_row(key_id: str, sha256: str, models: str) -> tuple[str, tuple[()]]:
    """An INSERT by hand, of SQL expressions."""
    values = f"{key_id}, 'acme', {sha256}, 'sk', {models}, 0, NULL, NULL, 0"
    return f"INSERT INTO keys VALUES ({values})", ()


def raising(error: Exception) -> Callable[..., Any]:
    def fault(*_: object) -> Any:
        raise error

    return fault


def is_known(keyring: Keyring) -> bool:
    try:
        return keyring.identify(None, KEY, time.time()).organization == "acme"
    except InvalidApiKey:
        return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIVENESS_S):
        while not true():
            await asyncio.sleep(0.005)


async def put(table: KeyTable, row: KeyRow) -> None:
    await asyncio.wrap_future(table.insert(row))


async def test_keys_are_known_from_the_start(database: Database) -> None:
    await put(KeyTable(database), ROW)
    keyring = Keyring(stored=True)
    await KeyWatcher(keyring, database).start()
    assert is_known(keyring)


async def test_an_empty_database_is_anonymous_from_the_start(database: Database) -> None:
    keyring = Keyring(stored=True)
    await KeyWatcher(keyring, database).start()
    assert keyring.anonymous


async def test_what_another_process_makes_and_revokes_counts_without_a_reload(
    database: Database, path: Path
) -> None:
    with Database.open(path, repair=False) as command:
        async with watched(database) as keyring:
            await put(KeyTable(command), ROW)
            await until(lambda: not keyring.anonymous)
            assert is_known(keyring)
            await asyncio.wrap_future(KeyTable(command).revoke(ROW.id, 2_000.0))
            await until(lambda: not is_known(keyring))


async def test_it_looks_twice_a_second(database: Database) -> None:
    """A created key counts within a second."""
    assert KeyWatcher(Keyring(stored=True), database)._interval_s <= 0.5


async def test_a_file_that_cannot_be_read_at_first_lets_nobody_in_until_it_can(
    tmp_path: Path, logged: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "state"
    folder.write_text("no folder")
    with Database(folder / "router.db", retry_s=0.01) as database:
        database.start()
        async with watched(database) as keyring:
            assert not keyring.anonymous
            folder.unlink()
            await asyncio.to_thread(database.flushed().result, LIVENESS_S)
            await until(lambda: keyring.anonymous)
    told = [line["event"] for line in logged if line["event"].startswith("keys_")]
    assert told == ["keys_unread", "keys_read", "keys_read_again"]


async def test_what_was_known_counts_while_the_file_is_away(
    database: Database, path: Path, logged: list[dict[str, Any]]
) -> None:
    await put(KeyTable(database), ROW)
    away = path.with_name("away")
    async with watched(database) as keyring:
        path.rename(away)
        await until(lambda: "keys_unread" in [line["event"] for line in logged])
        assert is_known(keyring)
        away.rename(path)
        await until(lambda: "keys_read_again" in [line["event"] for line in logged])
        assert is_known(keyring)


BAD_ROWS = {
    "models of a number": ("'bad'", "'ab'", "'[1]'"),
    "models that are no list": ("'bad'", "'ab'", "'{}'"),
    "models that are no JSON": ("'bad'", "'ab'", "'*'"),
    "no models": ("'bad'", "'ab'", "'[]'"),
    "no hash": ("'bad'", "'no hash'", """'["*"]'"""),
    "a hash of another length": ("'bad'", "'ab'", """'["*"]'"""),
    "no UTF-8": ("CAST(x'626164ff' AS TEXT)", "CAST(x'ff' AS TEXT)", "CAST(x'ff' AS TEXT)"),
}


@pytest.mark.parametrize("values", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_a_row_that_makes_no_sense_is_told_and_the_others_count(
    database: Database, logged: list[dict[str, Any]], values: tuple[str, str, str]
) -> None:
    async with watched(database) as keyring:
        await asyncio.wrap_future(database.execute(bad_row(*values)))
        await put(KeyTable(database), ROW)
        await until(lambda: is_known(keyring))
        told = [line["key_id"] for line in logged if line["event"] == "key_unusable"]
        assert [key_id[:3] for key_id in told] == ["bad"]


async def test_a_row_whose_models_make_no_sense_lets_nobody_in(database: Database) -> None:
    await asyncio.wrap_future(database.execute(bad_row("'bad'", f"'{ROW.sha256}'", "'[1]'")))
    async with watched(database) as keyring:
        assert not is_known(keyring)
        assert not keyring.anonymous


async def test_a_row_that_makes_no_sense_is_a_key_that_exists(database: Database) -> None:
    await asyncio.wrap_future(database.execute(bad_row("'bad'", "'no hash'", "'[1]'")))
    async with watched(database) as keyring:
        assert not keyring.anonymous


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ZeroDivisionError()])
async def test_it_goes_on_after_any_fault(
    database: Database,
    logged: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        with monkeypatch.context() as fault:
            fault.setattr(KeyTable, "version", raising(error))
            await until(lambda: "keys_unread" in [line["event"] for line in logged])
        await asyncio.wrap_future(KeyTable(database).revoke(ROW.id, 2_000.0))
        await until(lambda: not is_known(keyring))
    assert "keys_read_again" in [line["event"] for line in logged]


async def test_a_folder_that_cannot_be_listed_opens_no_house(
    database: Database, logged: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file that was set aside may lie there: the keys in it are not known."""
    monkeypatch.setattr("os.listdir", raising(OSError(24, "Too many open files")))
    monkeypatch.setattr("os.scandir", raising(OSError(24, "Too many open files")))
    async with watched(database) as keyring:
        assert not keyring.anonymous
    assert "keys_unread" in [line["event"] for line in logged]


async def test_keys_survive_the_damage_of_their_file(database: Database, path: Path) -> None:
    """The file that comes after a damaged one gets the keys that this process knows."""
    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        set_aside(path)
        await asyncio.to_thread(database.flushed().result, LIVENESS_S)
        await until(lambda: ROW in _rows(database))
        assert is_known(keyring)
        assert not keyring.anonymous


def delete(path: Path) -> None:
    """As `rm router.db*` does it."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


async def write(database: Database) -> None:
    """Any write begins a file that is gone anew."""
    await asyncio.wait_for(asyncio.wrap_future(database.flushed()), LIVENESS_S)


def events(logged: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in logged]


async def test_keys_survive_the_deletion_of_their_file(
    database: Database, path: Path, logged: list[dict[str, Any]]
) -> None:
    """As they were, those that are revoked or expired too; nobody is told that they are gone."""
    rows = [ROW, OTHER, replace(ROW, id="acme-3", sha256="03" * 32, expires_at=1.0)]
    for row in rows:
        await put(KeyTable(database), row)
    async with watched(database) as keyring:
        delete(path)
        await write(database)
        await until(lambda: _rows(database) == rows)
        await until(lambda: "keys_written_back" in events(logged))
        assert is_known(keyring)
        assert not keyring.anonymous
    assert not {"key_removed", "key_made", "keys_lost"} & set(events(logged))


async def test_keys_survive_every_deletion(database: Database, path: Path) -> None:
    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        for _ in range(3):
            delete(path)
            await write(database)
            await until(lambda: _rows(database) == [ROW])
        await put(KeyTable(database), OTHER)
        await until(lambda: keyring.active(time.time()) == 1)
        assert is_known(keyring)


async def test_what_is_revoked_in_the_new_file_stays_so_in_the_next(
    database: Database, path: Path
) -> None:
    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        delete(path)
        await write(database)
        await until(lambda: _rows(database) == [ROW])
        await asyncio.wrap_future(KeyTable(database).revoke(ROW.id, 2_000.0))
        await until(lambda: not is_known(keyring))
        delete(path)
        await write(database)
        await until(lambda: _rows(database) == [replace(ROW, revoked_at=2_000.0)])
        assert not is_known(keyring)


async def test_a_file_with_keys_of_its_own_counts_as_it_is(database: Database, path: Path) -> None:
    """Whoever puts it there means those."""
    await put(KeyTable(database), ROW)
    other = path.with_name("another.db")
    with Database.open(other) as prepared:
        await put(KeyTable(prepared), OTHER)
    async with watched(database) as keyring:
        delete(path)
        other.rename(path)
        await until(lambda: not is_known(keyring))
        await write(database)
        assert _rows(database) == [OTHER]


async def test_a_file_begun_by_the_command_that_makes_a_key_counts_as_it_is(
    database: Database, path: Path
) -> None:
    """Nobody can tell it from one that was put there."""
    await put(KeyTable(database), ROW)
    keyring = Keyring(stored=True)
    watcher = KeyWatcher(keyring, database)
    await watcher.start()
    delete(path)
    with Database.open(path, repair=False) as command:
        await put(KeyTable(command), OTHER)
    await watcher.close()
    assert not is_known(keyring)
    assert _rows(database) == [OTHER]


async def test_a_table_that_was_emptied_by_hand_stays_empty(database: Database) -> None:
    """It is the same file: whoever deletes a row means it."""
    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        await asyncio.wrap_future(database.execute(("DELETE FROM keys", ())))
        await until(lambda: not is_known(keyring))
        assert not keyring.anonymous
        with suppress(StorageError):
            database.read("SELECT * FROM nowhere")  # reading goes on by another connection
        assert _rows(database) == []


async def test_keys_are_written_into_a_file_that_is_begun_at_the_end(
    database: Database, path: Path
) -> None:
    """The next start would be anonymous."""
    await put(KeyTable(database), ROW)
    watcher = KeyWatcher(Keyring(stored=True), database)
    await watcher.start()
    delete(path)
    await write(database)
    await watcher.close()
    assert _rows(database) == [ROW]


async def test_keys_count_until_they_are_written_back(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file is not believed while that is not possible."""
    tried: list[object] = []

    def full(*arguments: object, **_: bool) -> None:
        tried.append(arguments)
        raise BacklogFull

    await put(KeyTable(database), ROW)
    async with watched(database) as keyring:
        with monkeypatch.context() as fault:
            fault.setattr(KeyTable, "write_back", full)
            delete(path)
            await write(database)
            await until(lambda: len(tried) > 1)
            assert is_known(keyring)
        await until(lambda: _rows(database) == [ROW])


async def test_a_start_after_damage_lets_nobody_in_without_a_key(path: Path) -> None:
    path.write_bytes(b"no database" * 1_000)
    with Database.open(path) as database:
        keyring = Keyring(stored=True)
        await KeyWatcher(keyring, database).start()
        assert not keyring.anonymous
        await put(KeyTable(database), ROW)
        await KeyWatcher(keyring, database).start()
        assert is_known(keyring)


def _rows(database: Database) -> list[KeyRow]:
    try:
        return KeyTable(database).rows()
    except StorageError:
        return []
