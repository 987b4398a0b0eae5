"""What outlives a request: opened, run and closed in its order, with a file and without one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.access.secret import digest_of
from router.access.watcher import KeyWatcher
from router.config.settings import KeySettings, OrganizationSettings, Settings
from router.errors import MissingApiKey
from router.ledger import Limits, MemoryLedger, Refusal, SqliteLedger
from router.model import Usage
from router.state import State, limits_of
from router.storage import Database, StorageError


def organization(name: str = "acme", **limits: int | None) -> OrganizationSettings:
    key = KeySettings(id=f"{name}-1", sha256=digest_of(f"sk-{name}").hex())
    return OrganizationSettings(id=name, keys=(key,), **limits)


def settings(*organizations: OrganizationSettings) -> Settings:
    return Settings(organizations=organizations)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "router.db"


def spend(state: State, tokens: int) -> None:
    now = time.time()
    reservation = state.ledger.reserve("acme", tokens, 0, now)
    assert not isinstance(reservation, Refusal)
    state.ledger.settle(reservation, Usage(tokens, 0))


def ignored(_task: asyncio.Task[None]) -> None:
    """That a task has ended."""


def used(state: State) -> int:
    return state.ledger.windows("acme", time.time())[0].used


def test_an_organizations_limits_are_those_of_its_settings():
    row = OrganizationSettings(id="a", daily_tokens=1, monthly_tokens=None, daily_requests=3)
    assert limits_of(row) == Limits(1, None, 3)


async def test_without_a_file_usage_is_in_memory():
    state = State(settings(organization()), None)
    await state.start(ignored)
    assert type(state.ledger) is MemoryLedger
    assert state.database is None
    await state.close()


async def test_without_a_file_and_without_a_key_everybody_is_let_in():
    state = State(settings(), None)
    await state.start(ignored)
    assert state.keyring.anonymous
    await state.close()


async def test_limits_hold_before_anything_has_started():
    """No request may come before its organization's limits do."""
    state = State(settings(organization(daily_tokens=10)), None)
    assert isinstance(state.ledger.reserve("acme", 11, 0, time.time()), Refusal)


async def test_new_settings_bring_new_limits_and_keys():
    state = State(settings(organization(daily_tokens=10)), None)
    state.configure(settings(organization(daily_tokens=20), organization("beta")))
    spend(state, 20)
    assert state.keyring.identify("Bearer sk-beta", None, time.time()).organization == "beta"


async def test_with_a_file_usage_outlives_the_process(path):
    first = State(settings(organization()), path)
    await first.start(ignored)
    assert isinstance(first.ledger, SqliteLedger)
    spend(first, 123)
    await first.close()
    second = State(settings(organization()), path)
    await second.start(ignored)
    assert used(second) == 123
    await second.close()


async def test_what_was_never_started_can_be_closed(path):
    state = State(settings(organization()), path)
    await state.close()


async def test_the_files_folder_is_made(path):
    state = State(settings(), path)
    await state.start(ignored)
    await state.close()
    assert path.exists()


async def test_before_the_stored_keys_are_read_nobody_is_let_in_without_one(path):
    state = State(settings(), path)
    with pytest.raises(MissingApiKey):
        state.keyring.identify(None, None, time.time())
    await state.start(ignored)
    assert state.keyring.anonymous
    await state.close()


async def test_a_file_has_one_daemon_and_the_first_goes_on(path):
    first = State(settings(organization()), path)
    await first.start(ignored)
    with pytest.raises(StorageError):
        State(settings(organization()), path)
    spend(first, 5)
    await first.close()
    second = State(settings(organization()), path)
    await second.start(ignored)
    assert used(second) == 5
    await second.close()


async def until_logged(logs: list[Any], event: str) -> None:
    async with asyncio.timeout(20):
        while event not in [line["event"] for line in logs]:
            await asyncio.sleep(0.005)


async def started_without_a_lock(path: Path) -> State:
    """A state whose lock was deleted since."""
    state = State(settings(organization()), path)
    await state.start(ignored)
    path.with_name("router.db.lock").unlink()
    return state


async def test_a_file_whose_lock_is_deleted_has_one_daemon_still(path, monkeypatch):
    monkeypatch.setattr("router.state._CLAIM_S", 0.01)
    with capture_logs() as logs:
        first = await started_without_a_lock(path)
        await until_logged(logs, "state_claimed_again")
    with pytest.raises(StorageError):
        State(settings(organization()), path)
    await first.close()


async def test_a_second_daemon_that_came_first_is_told_once(path, monkeypatch):
    monkeypatch.setattr("router.state._CLAIM_S", 0.01)
    with capture_logs() as logs:
        first = await started_without_a_lock(path)
        second = State(settings(organization()), path)
        looks = counted(monkeypatch, Database, "renew_claim")
        async with asyncio.timeout(20):
            while len(looks) < 5:
                await asyncio.sleep(0.005)
        await second.close()
        await until_logged(logs, "state_claimed_again")
        await first.close()
    assert [line["event"] for line in logs if line["event"].startswith("state_")] == [
        "state_unclaimed",
        "state_claimed_again",
    ]


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """Grows with every call of a method."""
    calls: list[None] = []
    method = getattr(owner, name)

    def counting(*arguments: Any) -> Any:
        calls.append(None)
        return method(*arguments)

    monkeypatch.setattr(owner, name, counting)
    return calls


async def test_closing_leaves_no_task_behind(path):
    before = asyncio.all_tasks()
    state = State(settings(organization()), path)
    await state.start(ignored)
    assert {task.get_name() for task in asyncio.all_tasks() - before} >= {"ledger", "keys"}
    await state.close()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("name", ["ledger", "keys"])
async def test_a_task_that_ends_is_told_of(path, monkeypatch, name):
    """Without the ledger's task usage is lost in a crash; without the keys' one none is revoked."""

    async def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr({"ledger": SqliteLedger, "keys": KeyWatcher}[name], "run", broken)
    ended = asyncio.get_running_loop().create_future()
    state = State(settings(organization()), path)
    await state.start(lambda task: task.cancelled() or ended.set_result(task))
    task = await asyncio.wait_for(ended, 20)
    assert task.get_name() == name
    assert isinstance(task.exception(), ZeroDivisionError)
    await state.close()


@pytest.fixture
def away(path, monkeypatch) -> Path:
    """The folder of the file is none, until this is deleted; nobody waits long for it."""
    monkeypatch.setattr("router.ledger.sqlite._PATIENCE_S", 0.05)
    path.parent.write_text("no folder")
    return path.parent


async def test_who_closes_is_told_that_usage_could_not_be_written_and_why(path, away):
    state = State(settings(organization()), path)
    await state.start(ignored)
    spend(state, 5)
    with capture_logs() as logs:
        assert not await state.close()
    [line] = [line for line in logs if line["event"] == "ledger_unsaved"]
    assert str(away) in line["error"]


async def test_a_disk_at_fault_takes_nothing_where_nothing_was_used(path, away):
    state = State(settings(organization()), path)
    await state.start(ignored)
    assert await state.close()


async def test_usage_from_before_the_disk_came_back_is_written_at_the_end(path, away, monkeypatch):
    state = State(settings(organization()), path)
    await state.start(ignored)
    spend(state, 5)
    monkeypatch.undo()
    away.unlink()
    assert await state.close()
    following = State(settings(organization()), path)
    await following.start(ignored)
    assert used(following) == 5
    await following.close()
