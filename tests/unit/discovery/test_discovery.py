"""Which sources run, as the settings say and as they change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.config import Settings
from router.discovery import Discovery
from router.discovery import discovery as discovery_module
from router.discovery.docker_source import DockerSource
from router.discovery.files_source import FilesSource
from router.events import EventLog
from router.model import ServiceSpec


def settings(folder: Path | None, **docker) -> Settings:
    return Settings.model_validate(
        {"discovery": {"docker": docker, "files": folder}}, context={"folder": "/"}
    )


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    made = [tmp_path / name for name in ("one.d", "two.d")]
    for folder in made:
        folder.mkdir()
        (folder / "a.yaml").write_text(f"- {{name: {folder.stem}, url: 'http://h:1'}}\n")
    return made


class Publications(list):
    def __call__(self, source, specs, /, *, dead=()) -> None:
        self.append((source, [spec.name for spec in specs]))

    async def until(self, *expected) -> None:
        async with asyncio.timeout(5):
            while not self or self[-1] != expected:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(of: Settings):
    published = Publications()
    discovery = Discovery(of, published, EventLog())
    task = asyncio.create_task(discovery.run())
    try:
        yield discovery, published, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_discovery_nothing_runs():
    async with running(settings(None)) as (discovery, published, _):
        await asyncio.sleep(0.01)
        assert list(discovery.statuses()) == []
        assert published == []


async def test_a_folder_is_followed_when_it_is_asked_for(folders):
    async with running(settings(None)) as (discovery, published, _):
        discovery.configure(settings(folders[0]))
        await published.until("files", ["one"])
        assert [status.source for status in discovery.statuses()] == ["files"]


async def test_what_a_source_published_goes_with_it(folders):
    async with running(settings(folders[0])) as (discovery, published, _):
        await published.until("files", ["one"])
        discovery.configure(settings(None))
        await published.until("files", [])
        assert list(discovery.statuses()) == []


async def test_another_folder_replaces_the_first_without_a_gap(folders):
    async with running(settings(folders[0])) as (discovery, published, _):
        await published.until("files", ["one"])
        discovery.configure(settings(folders[1]))
        await published.until("files", ["two"])
        assert published == [("files", ["one"]), ("files", ["two"])]


async def test_other_settings_leave_a_source_as_it_is(folders):
    async with running(settings(folders[0])) as (discovery, published, _):
        await published.until("files", ["one"])
        discovery.configure(settings(folders[0], network="other"))
        await asyncio.sleep(0.05)
        assert published == [("files", ["one"])]


async def test_an_engine_that_is_not_there_is_a_status_and_no_error(tmp_path):
    endpoint = f"unix://{tmp_path}/none.sock"
    async with running(settings(None, enabled=True, endpoint=endpoint)) as (discovery, _, _):
        async with asyncio.timeout(5):
            while not any("No such file" in (s.error or "") for s in discovery.statuses()):
                await asyncio.sleep(0.005)
        (status,) = discovery.statuses()
        assert (status.source, status.healthy, status.services) == ("docker", False, 0)


async def fail(*_) -> None:
    raise ZeroDivisionError("of a test")


async def failed(discovery: Discovery) -> None:
    async with asyncio.timeout(5):
        while not any("failed" in (status.error or "") for status in discovery.statuses()):
            await asyncio.sleep(0.005)


async def test_a_source_that_fails_is_logged_with_its_trace_and_not_healthy(folders, monkeypatch):
    monkeypatch.setattr(FilesSource, "run", fail)
    with capture_logs() as logs:
        async with running(settings(folders[0])) as (discovery, _, task):
            await failed(discovery)
            (status,) = discovery.statuses()
            assert not task.done()
    assert not status.healthy
    assert "ZeroDivisionError: of a test" in status.error
    (line,) = [each for each in logs if each["event"] == "source_failed"]
    assert line["source"] == "files"
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_a_source_that_fails_leaves_the_other_one_at_work(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(DockerSource, "run", fail)
    endpoint = f"unix://{tmp_path}/none.sock"
    async with running(settings(folders[0], enabled=True, endpoint=endpoint)) as (
        discovery,
        published,
        _,
    ):
        await failed(discovery)
        await published.until("files", ["one"])


async def test_a_source_that_failed_is_started_again(folders, monkeypatch):
    whole = FilesSource.run
    monkeypatch.setattr(discovery_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(FilesSource, "run", fail)
    async with running(settings(folders[0])) as (discovery, published, _):
        await failed(discovery)
        monkeypatch.setattr(FilesSource, "run", whole)
        await published.until("files", ["one"])
        assert [status.healthy for status in discovery.statuses()] == [True]


async def test_a_source_that_cannot_take_over_settings_is_started_again(folders, monkeypatch):
    monkeypatch.setattr(discovery_module, "_PAUSE_S", 0.01)

    def refuse(*_) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(FilesSource, "configure", refuse)
    with capture_logs() as logs:
        async with running(settings(folders[0])) as (discovery, published, task):
            await published.until("files", ["one"])
            discovery.configure(settings(folders[0], network="other"))
            (folders[0] / "a.yaml").write_text("- {name: new, url: 'http://h:1'}\n")
            await published.until("files", ["new"])
            assert not task.done()
    assert "source_failed" in [each["event"] for each in logs]


async def test_what_a_source_tells_after_it_was_switched_off_is_not_published(folders, monkeypatch):
    late = []

    async def run(self) -> None:
        late.append(self._publish)
        self._publish("files", ())
        await asyncio.Event().wait()

    monkeypatch.setattr(FilesSource, "run", run)
    async with running(settings(folders[0])) as (discovery, published, _):
        await published.until("files", [])
        discovery.configure(settings(None))
        async with asyncio.timeout(5):
            while list(discovery.statuses()):
                await asyncio.sleep(0.005)
        late[0]("files", (ServiceSpec("late", "http://h:1", "files"),))
        assert published == [("files", []), ("files", [])]
