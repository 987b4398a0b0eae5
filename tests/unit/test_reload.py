"""Who decides which configuration runs: as a whole or not at all, and a storm is one reload."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.config import ConfigurationError, Problem, Settings
from router.config.snapshot import read_snapshot
from router.events import EventLog, Severity
from router.reload import Reloader


def settings(**tree: Any) -> Settings:
    return Settings.model_validate(tree)


def of_size(max_body_mb: int) -> Settings:
    return settings(server={"max_body_mb": max_body_mb})


class File:
    """A file to read: what it holds, and how often it was read."""

    def __init__(self) -> None:
        self.holds: Settings | ConfigurationError = settings()
        self.reads = 0
        self.readable = threading.Event()
        self.readable.set()
        self.reading = threading.Event()

    def read(self) -> Settings:
        self.reads += 1
        self.reading.set()
        assert self.readable.wait(30)
        if isinstance(self.holds, ConfigurationError):
            raise self.holds
        return self.holds


class Router:
    """A reloader at work, and what it has had taken over."""

    def __init__(self, **more: Any) -> None:
        self.file = File()
        self.applied: list[Settings] = []
        self.reloader = Reloader(
            settings(), self.file.read, self.applied.append, **{"quiet_s": 0.005, **more}
        )

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.reloader.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.001)

    async def reload(self, found: Settings | ConfigurationError) -> None:
        """Have the file hold this, and ask for one reload until it has been judged."""
        self.file.holds = found
        with capture_logs() as logs:
            self.reloader.request()
            await self.until(lambda: any(log["event"].startswith("reload") for log in logs))


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def test_the_first_configuration_is_generation_1_without_an_error():
    reloader = Router().reloader
    assert (reloader.generation, reloader.last_error) == (1, None)


async def test_new_settings_are_taken_over_and_count_a_generation():
    async with Router().running() as router:
        await router.reload(of_size(64))
        assert router.applied == [of_size(64)]
        assert router.reloader.settings == of_size(64)
        assert (router.reloader.generation, router.reloader.last_error) == (2, None)


async def test_a_reload_that_changes_nothing_is_no_new_generation():
    async with Router().running() as router:
        await router.reload(settings())
        assert (router.applied, router.reloader.generation) == ([], 1)


async def test_they_are_applied_in_the_thread_of_the_loop_and_read_in_another():
    threads: list[int] = []
    router = Router()
    reloader = Reloader(
        settings(),
        lambda: threads.append(threading.get_ident()) or of_size(1),
        lambda _: threads.append(threading.get_ident()),
        quiet_s=0,
    )
    task = asyncio.create_task(reloader.run())
    reloader.request()
    await router.until(lambda: reloader.generation == 2)
    task.cancel()
    assert threads[0] != threads[1] == threading.get_ident()


async def test_what_changed_is_logged(logs):
    async with Router().running() as router:
        router.file.holds = of_size(64)
        router.reloader.request()
        await router.until(lambda: logs)
    (log,) = logs
    assert log["event"] == "reloaded"
    assert log["changes"] == ["server.max_body_mb 32 -> 64"]
    assert log["generation"] == 2


# -- what people are told ----------------------------------------------------------------------


async def test_a_reload_is_an_event_with_its_first_changes():
    events = EventLog()
    async with Router(events=events).running() as router:
        changed = {"max_body_mb": 64, "idle_timeout_s": 1, "header_timeout_s": 2}
        await router.reload(settings(server={**changed, "body_timeout_s": 3}))
    (event,) = events.since(0)
    assert (event.kind, event.severity) == ("reload", Severity.INFO)
    assert event.text.startswith("reloaded, generation 2: server.")
    assert event.text.endswith("; and 1 more")


async def test_a_refused_reload_is_an_event_with_its_reason():
    events = EventLog()
    async with Router(events=events).running() as router:
        await router.reload(WRONG)
        await router.reload(settings(server={"port": 9}))
    problem, restart = events.since(0)
    assert problem.severity is restart.severity is Severity.ERROR
    assert problem.text.startswith("refused: backends.yaml:3")
    assert restart.text.startswith("refused: server.port: needs a restart")


# -- what is refused ---------------------------------------------------------------------------

WRONG = ConfigurationError(
    (
        Problem("backends.yaml", 3, "server.port", "must be a whole number"),
        Problem("backends.yaml", 7, "services[0].url", "not a URL"),
    )
)


async def test_a_wrong_file_keeps_what_runs_and_is_told_by_file_line_and_key(logs):
    async with Router().running() as router:
        router.file.holds = WRONG
        router.reloader.request()
        await router.until(lambda: len(logs) == 2)
        assert [(log["file"], log["line"], log["key"], log["problem"]) for log in logs] == [
            ("backends.yaml", 3, "server.port", "must be a whole number"),
            ("backends.yaml", 7, "services[0].url", "not a URL"),
        ]
        assert {log["event"] for log in logs} == {"reload_refused"}
        await router.until(lambda: router.reloader.last_error)
        assert router.reloader.last_error == (
            "backends.yaml:3: server.port: must be a whole number (and 1 more, in the log)"
        )
        assert (router.applied, router.reloader.generation) == ([], 1)
        assert router.reloader.settings == settings()


async def test_a_thousand_problems_are_not_a_thousand_lines(logs):
    async with Router().running() as router:
        problem = Problem("f", 1, "k", "wrong")
        router.file.holds = ConfigurationError((problem,) * 1000)
        router.reloader.request()
        await router.until(lambda: router.reloader.last_error)
        assert len(logs) <= 50
        assert len(router.reloader.last_error or "") < 200


@pytest.mark.parametrize(
    ("tree", "key"),
    [({"server": {"port": 1}}, "server.port"), ({"ledger": {"url": "memory://"}}, "ledger.url")],
)
async def test_a_change_that_needs_a_restart_refuses_the_whole(tree, key):
    async with Router().running() as router:
        tree.setdefault("server", {})["max_body_mb"] = 64
        await router.reload(settings(**tree))
        assert (router.applied, router.reloader.generation) == ([], 1)
        assert (router.reloader.last_error or "").startswith(f"{key}: needs a restart")


@pytest.mark.parametrize("repaired", [settings(), of_size(64)], ids=["as it was", "another"])
async def test_the_error_is_gone_when_the_file_is_right_again(repaired):
    async with Router().running() as router:
        await router.reload(WRONG)
        assert router.reloader.last_error is not None
        before = router.reloader.last_reload
        await router.reload(repaired)
        assert router.reloader.last_error is None
        assert router.reloader.last_reload > before


# -- storms ------------------------------------------------------------------------------------


async def test_a_storm_of_requests_is_one_reload():
    async with Router(quiet_s=0.5, patience_s=60).running() as router:
        router.file.holds = of_size(64)
        for _ in range(100):
            router.reloader.request()
            await asyncio.sleep(0)
        await router.until(lambda: router.reloader.generation == 2)
        assert router.file.reads == 1


async def test_a_storm_without_end_is_not_waited_out():
    async with Router(quiet_s=0.01, patience_s=0.05).running() as router:
        router.file.holds = of_size(64)

        def storm() -> bool:
            router.reloader.request()
            return router.reloader.generation == 2

        await router.until(storm)


async def test_a_request_during_a_reload_is_one_more():
    async with Router().running() as router:
        router.file.readable.clear()
        router.reloader.request()
        await asyncio.to_thread(router.file.reading.wait, 30)
        for _ in range(10):
            router.reloader.request()
        router.file.holds = of_size(64)
        router.file.readable.set()
        await router.until(lambda: router.file.reads == 2)
        await asyncio.sleep(0.05)
        assert router.file.reads == 2


# -- what other processes are told -------------------------------------------------------------


async def test_the_snapshot_follows_what_runs_and_ends_with_it(tmp_path: Path):
    path = tmp_path / "router.db.running.json"
    async with Router(snapshot=path, pinned=["server.port"]).running() as router:
        await router.until(path.exists)
        assert read_snapshot(path).generation == 1
        assert read_snapshot(path).pinned == ("server.port",)
        await router.reload(of_size(64))
        await router.until(lambda: read_snapshot(path).generation == 2)
        server = read_snapshot(path).settings["server"]
        assert isinstance(server, dict)
        assert server["max_body_mb"] == 64
    assert not path.exists()


async def test_a_refused_file_leaves_the_snapshot_as_it_was(tmp_path: Path):
    path = tmp_path / "router.db.running.json"
    async with Router(snapshot=path).running() as router:
        await router.until(path.exists)
        before = path.read_bytes()
        await router.reload(WRONG)
        assert path.read_bytes() == before


async def test_a_snapshot_that_cannot_be_written_stops_nothing(tmp_path: Path, logs):
    (tmp_path / "file").write_text("")
    async with Router(snapshot=tmp_path / "file" / "x.json").running() as router:
        await router.until(lambda: logs)
        assert [log["event"] for log in logs] == ["snapshot_unwritten"]
        await router.reload(of_size(64))
        assert router.reloader.generation == 2
