"""Signals while the router starts, and while it writes usage at its end: none may kill it."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.quota.organization import ask, log_lines, organization, used
from router.storage import Database
from support.daemon import Daemon, service
from support.http import chat

COST = 5
"""Of one chat of the scripted engine, in tokens."""


@pytest.fixture
def config(start_upstream) -> dict[str, Any]:
    upstream = start_upstream()
    return {
        "organizations": [organization(daily_tokens=10**6)],
        "services": [service("engine", upstream.url, "tiny")],
    }


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state database, as an earlier daemon has left it."""
    path = tmp_path / "state" / "router.db"
    Database.open(path).close()
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write the file, as while a backup is made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield


def end_while_usage_is_written(router: Daemon, state: Path, number: int) -> int:
    """SIGTERM, and another signal before usage is on disk; the exit status."""
    with locked(state):
        assert ask(router, chat()).status == 200
        router.signal(signal.SIGTERM)
        router.until(lambda: bool(log_lines(router, "draining")), "draining")
        router.until(lambda: "storage_degraded" in router.log, "usage waits for the disk")
        router.signal(number)
    return router.wait()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 1), (signal.SIGHUP, 0)])
def test_a_signal_while_usage_is_written_loses_none(config, state, tmp_path, number, status):
    with Daemon(tmp_path, config) as router:
        assert end_while_usage_is_written(router, state, number) == status
    with Daemon(tmp_path, config) as router:
        assert used(router) == COST


def begun_while_the_disk_is_away(config: dict[str, Any], state: Path) -> Daemon:
    """A daemon that reads what an earlier one has left."""
    router = Daemon(state.parent.parent, config)
    router.until(lambda: "storage_degraded" in router.log, "the start waits for the disk")
    return router


def test_a_reload_that_is_asked_for_in_the_start_is_done_after_it(config, state):
    with locked(state):
        router = begun_while_the_disk_is_away(config, state)
        router.signal(signal.SIGHUP)
    with router:
        router.until(lambda: bool(log_lines(router, "reload_changed_nothing")), "reloaded")


def test_who_is_told_to_stop_in_the_start_stops_in_order(config, state):
    with locked(state):
        router = begun_while_the_disk_is_away(config, state)
        router.signal(signal.SIGTERM)
    assert router.wait() == 0
    assert log_lines(router, "stopped")


def test_who_cannot_write_usage_says_so_and_ends_with_1(config, state, tmp_path):
    with Daemon(tmp_path, config) as router, locked(state):
        assert ask(router, chat()).status == 200
        assert router.terminate() == 1
    [line] = log_lines(router, "ledger_unsaved")
    assert "database is locked" in line["error"]
