"""The durable ledger: when things reach the disk, and what a failing disk does to it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.ledger import Limits, Refusal, Reservation, SqliteLedger, stored_usage
from router.model import Usage
from router.storage import Database, StoredWindow, UsageTable

NOW = 1_769_860_800.0  # 2026-01-31 12:00 UTC
DAY_END = 1_769_904_000
LIMITS = {"acme": Limits(daily_tokens=1_000)}


class Disk:
    """Opens connections that fail while `error` is set."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
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

    def open(self, path: Path, capacity: int = 1_000) -> Database:
        return Database(path, connect=self.connect, retry_s=0.01, capacity=capacity).start()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "r.db") as database:
        yield database


def spend(ledger: SqliteLedger, tokens: int, organization: str = "acme") -> None:
    reservation = ledger.reserve(organization, tokens, 0, NOW)
    assert isinstance(reservation, Reservation)
    ledger.settle(reservation, Usage(tokens, 0))


def on_disk(database: Database) -> tuple[int, int]:
    """Tokens of the day: settled, open."""
    for row in UsageTable(database).in_force(NOW):
        if (row.organization, row.kind, row.period) == ("acme", "tokens", "day"):
            return row.used, row.open
    return 0, 0


@asynccontextmanager
async def running(ledger: SqliteLedger) -> AsyncIterator[None]:
    task = asyncio.create_task(ledger.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_on_disk(database: Database, expected: tuple[int, int]) -> float:
    """Seconds until the disk has it; fails after ten."""
    begin = time.monotonic()
    while on_disk(database) != expected:
        assert time.monotonic() - begin < 10
        await asyncio.sleep(0.005)
    return time.monotonic() - begin


async def test_what_is_settled_reaches_the_disk_by_itself(database: Database) -> None:
    """`run` alone brings it there, from idle and again."""
    ledger = SqliteLedger(database, LIMITS, clock=lambda: NOW)
    await ledger.start(NOW)
    async with running(ledger):
        spend(ledger, 7)
        await until_on_disk(database, (7, 0))
        spend(ledger, 8)
        await until_on_disk(database, (15, 0))


async def test_what_is_open_is_checkpointed_by_itself(database: Database) -> None:
    """The disk has the last progress of an open reservation, and not once it is released."""
    ledger = SqliteLedger(database, LIMITS, clock=lambda: NOW)
    await ledger.start(NOW)
    async with running(ledger):
        reservation = ledger.reserve("acme", 10, 90, NOW)
        assert isinstance(reservation, Reservation)
        reservation.progress(10, 5)
        await until_on_disk(database, (0, 15))
        ledger.release(reservation)
        await until_on_disk(database, (0, 0))


async def test_what_ends_while_another_waits_for_the_disk_is_open_there_no_more(
    database: Database,
) -> None:
    """Else a crash would charge it twice."""
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    seen, unseen = (ledger.reserve("acme", 100, 0, NOW) for _ in range(2))
    assert isinstance(seen, Reservation)
    assert isinstance(unseen, Reservation)
    seen.progress(50, 0)
    ledger.checkpoint()
    ledger.flush(NOW)
    ledger.settle(unseen, Usage(10, 0))
    ledger.settle(seen, Usage(60, 0))
    ledger.flush(NOW)
    await until_on_disk(database, (70, 0))


async def test_the_release_of_what_seemed_leaked_reaches_the_disk(database: Database) -> None:
    """It had been charged there."""
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    leaked = ledger.reserve("acme", 100, 0, NOW)
    assert isinstance(leaked, Reservation)
    leaked.progress(50, 0)
    ledger.expire(0)
    ledger.flush(NOW)
    await until_on_disk(database, (50, 0))
    ledger.release(leaked)
    ledger.flush(NOW)
    await until_on_disk(database, (0, 0))


async def test_what_an_earlier_process_used_counts_for_the_first_request(
    database: Database,
) -> None:
    """With nobody looking in between."""
    earlier = SqliteLedger(database, {"acme": Limits(daily_tokens=1000)})
    await earlier.start(NOW)
    spend(earlier, 900)
    await earlier.close(NOW)
    ledger = SqliteLedger(database, {"acme": Limits(daily_tokens=1000)})
    await ledger.start(NOW)
    assert isinstance(ledger.reserve("acme", 101, 0, NOW), Refusal)
    assert isinstance(ledger.reserve("acme", 100, 0, NOW), Reservation)


async def test_what_was_open_is_settled_by_the_next_start(database: Database) -> None:
    """Once, with its request, and the log says how much."""
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    spend(ledger, 100)
    for seen in (15, 0):
        reservation = ledger.reserve("acme", 10, 90, NOW)
        assert isinstance(reservation, Reservation)
        reservation.progress(0, seen)
    await ledger.close(NOW)
    for told in ([(1, 15)], []):
        with capture_logs() as logs:
            following = SqliteLedger(database, LIMITS)
            await following.start(NOW)
        used = [each.used for each in following.windows("acme", NOW)]
        assert used == [115, 115, 2]
        assert on_disk(database) == (115, 0)
        assert [(each["requests"], each["tokens"]) for each in logs] == told


async def test_a_disk_that_fails_later_loses_nothing(tmp_path: Path) -> None:
    """Serving goes on with right numbers, and the disk has them all when it is back."""
    disk = Disk()
    with disk.open(tmp_path / "r.db") as database:
        ledger = SqliteLedger(database, LIMITS)
        await ledger.start(NOW)
        disk.error = "database or disk is full"
        for _ in range(20):
            spend(ledger, 10)
            ledger.flush(NOW)
        assert disk.failed.wait(10)
        assert ledger.windows("acme", NOW)[0].used == 200
        disk.error = None
        await until_on_disk(database, (200, 0))


async def test_a_disk_that_fails_at_the_start_is_added_when_it_is_back(tmp_path: Path) -> None:
    """What was used before and what was used meanwhile are both counted."""
    path = tmp_path / "r.db"
    with Database.open(path) as database:
        earlier = SqliteLedger(database, LIMITS)
        await earlier.start(NOW)
        spend(earlier, 300)
        await earlier.close(NOW)
    disk = Disk("unable to open database file")
    with disk.open(path) as database:
        ledger = SqliteLedger(database, LIMITS)
        recovery = ledger.recover(NOW)
        spend(ledger, 50)
        ledger.flush(NOW)
        assert ledger.windows("acme", NOW)[0].used == 50
        disk.error = None
        assert recovery.wait(10)
        ledger.flush(NOW)
        assert ledger.windows("acme", NOW)[0].used == 350
        await until_on_disk(database, (350, 0))


async def test_what_is_used_before_the_disk_comes_back_is_written_at_the_close(
    tmp_path: Path,
) -> None:
    """Also where it comes back only then: what was there before is read first."""
    disk = Disk("unable to open database file")
    with disk.open(tmp_path / "r.db") as database:
        ledger = SqliteLedger(database, LIMITS)
        ledger.recover(NOW)
        spend(ledger, 50)
        asyncio.get_running_loop().call_later(0.05, setattr, disk, "error", None)
        assert await ledger.close(NOW)
        assert on_disk(database) == (50, 0)


async def with_full_backlog(database: Database, disk: Disk) -> SqliteLedger:
    """A ledger whose three rows of another organization wait, and no more may."""
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    disk.error = "database or disk is full"
    spend(ledger, 1, "other")
    ledger.flush(NOW)
    return ledger


async def test_a_full_backlog_keeps_what_it_could_not_take(tmp_path: Path) -> None:
    """Usage that found no place is handed over again later."""
    disk = Disk()
    with disk.open(tmp_path / "r.db", capacity=3) as database:
        ledger = await with_full_backlog(database, disk)
        spend(ledger, 10)
        ledger.flush(NOW)
        disk.error = None
        await asyncio.to_thread(lambda: until_healthy(database))
        ledger.flush(NOW)
        await until_on_disk(database, (10, 0))


def until_healthy(database: Database) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if database.status().backlog == 0:
            return
        pause.wait(0.005)
    raise AssertionError("the backlog is still there")


async def test_a_new_file_gets_everything(tmp_path: Path) -> None:
    """After the file was lost while running, the next one has what memory knows."""
    with Database.open(tmp_path / "r.db") as database:
        ledger = SqliteLedger(database, LIMITS)
        await ledger.start(NOW)
        spend(ledger, 40)
        ledger.flush(NOW)
        await until_on_disk(database, (40, 0))
        for each in tmp_path.iterdir():
            each.unlink()
        spend(ledger, 1, "other")
        ledger.flush(NOW)
        database.flushed().result(timeout=10)
        ledger.flush(NOW)
        await until_on_disk(database, (40, 0))


def told(database: Database) -> tuple[int, int]:
    """What `router usage` tells of the day's tokens: reserved, remaining."""
    day = stored_usage(database, LIMITS, NOW)["acme"][0]
    assert day.remaining is not None
    return day.reserved, day.remaining


async def until_told(database: Database, expected: tuple[int, int]) -> None:
    async with asyncio.timeout(10):
        while told(database) != expected:
            await asyncio.sleep(0.005)


async def test_what_is_reserved_is_told_while_it_is(database: Database) -> None:
    """By `run` alone, whether or not anything was used of it, from its beginning to its end."""
    ledger = SqliteLedger(database, LIMITS, clock=lambda: NOW)
    await ledger.start(NOW)
    async with running(ledger):
        first, second = (ledger.reserve("acme", 10, 90, NOW) for _ in range(2))
        assert isinstance(first, Reservation)
        assert isinstance(second, Reservation)
        await until_told(database, (200, 800))
        first.progress(10, 5)
        await until_on_disk(database, (0, 15))
        assert told(database) == (200, 800)
        ledger.release(second)
        await until_told(database, (100, 900))
        ledger.settle(first, Usage(10, 20))
        await until_told(database, (0, 970))


async def test_a_release_between_two_checkpoints_is_told(database: Database) -> None:
    """Also where only another request's end had told that it was there."""
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    passing = ledger.reserve("acme", 100, 0, NOW)
    assert isinstance(passing, Reservation)
    spend(ledger, 10)
    ledger.flush(NOW)
    await until_told(database, (100, 890))
    ledger.release(passing)
    ledger.checkpoint()
    ledger.flush(NOW)
    await until_told(database, (0, 990))


async def test_what_yesterdays_request_holds_of_the_month_is_told_today(
    database: Database,
) -> None:
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    yesterday = ledger.reserve("acme", 100, 0, NOW - 86_400)
    assert isinstance(yesterday, Reservation)
    spend(ledger, 10)
    for expected in (100, 0):
        ledger.checkpoint()
        ledger.flush(NOW)
        await asyncio.wrap_future(database.flushed())
        day, month, _ = stored_usage(database, LIMITS, NOW)["acme"]
        assert (day.reserved, month.reserved) == (0, expected)
        ledger.release(yesterday)


async def test_what_stays_reserved_is_written_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream costs the disk nothing by being there, nor by having been there."""
    written: list[int] = []
    put = UsageTable.put

    def counting(table: UsageTable, windows: Iterable[StoredWindow]) -> None:
        rows = list(windows)
        written.append(len(rows))
        put(table, rows)

    monkeypatch.setattr(UsageTable, "put", counting)
    ledger = SqliteLedger(database, LIMITS)
    await ledger.start(NOW)
    ledger.flush(NOW)
    reservation = ledger.reserve("acme", 100, 0, NOW)
    assert isinstance(reservation, Reservation)
    for begun in (True, False):
        written.clear()
        for _ in range(4):
            ledger.checkpoint()
            ledger.flush(NOW)
        assert written == [3], begun
        ledger.release(reservation)


async def test_a_start_tells_nothing_as_reserved(database: Database) -> None:
    """What a killed process held is neither charged nor told."""
    killed = SqliteLedger(database, LIMITS)
    await killed.start(NOW)
    assert isinstance(killed.reserve("acme", 10, 90, NOW), Reservation)
    await killed.close(NOW)
    assert told(database) == (100, 900)
    following = SqliteLedger(database, LIMITS)
    await following.start(NOW)
    assert told(database) == (0, 1_000)


async def test_what_found_no_place_is_told_later(tmp_path: Path) -> None:
    disk = Disk()
    with disk.open(tmp_path / "r.db", capacity=3) as database:
        ledger = await with_full_backlog(database, disk)
        assert isinstance(ledger.reserve("acme", 10, 90, NOW), Reservation)
        ledger.checkpoint()
        ledger.flush(NOW)
        disk.error = None
        await asyncio.to_thread(lambda: until_healthy(database))
        ledger.checkpoint()
        ledger.flush(NOW)
        await until_told(database, (100, 900))


async def test_usage_from_disk_alone(database: Database) -> None:
    """What `router usage` shows beside a running daemon: configured ones without usage too."""
    UsageTable(database).put(
        [StoredWindow("stranger", "tokens", "day", DAY_END - 86_400, DAY_END, 30, 2, 5)]
    )
    database.flushed().result(timeout=5)
    usage = stored_usage(database, LIMITS, NOW)
    assert list(usage) == ["acme", "stranger"]
    assert (usage["acme"][0].used, usage["acme"][0].remaining) == (0, 1_000)
    assert (usage["stranger"][0].used, usage["stranger"][0].reserved) == (30, 5)
