"""Every way in which a configuration changes is seen, with events and without."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.config import watching
from router.config.watching import ConfigWatcher, secret_files, view_of

NEVER_S = 3600  # between two looks: what is seen then, an event told of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "backends.yaml"
    path.parent.mkdir()
    path.write_text("services: []\n")
    return path


@asynccontextmanager
async def watched(watcher: ConfigWatcher) -> AsyncIterator[asyncio.Event]:
    changed = asyncio.Event()
    task = asyncio.create_task(watcher.run(changed.set))
    try:
        yield changed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


async def seen(changed: asyncio.Event, change: Callable[[int], None]) -> None:
    """Change it again and again until that is seen: nobody says when the watching has begun."""
    for turn in range(100):
        change(turn)
        try:
            async with asyncio.timeout(0.5):
                await changed.wait()
                return
        except TimeoutError:
            continue
    raise AssertionError("no change was seen")


# -- events ------------------------------------------------------------------------------------


async def test_an_event_tells_of_a_file_that_is_written_in_place(path: Path):
    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        await seen(changed, lambda turn: path.write_text(f"# {turn}") and None)


async def test_an_event_tells_of_a_file_that_an_editor_renames_into_place_each_time(path: Path):
    def save(turn: int) -> None:
        new = path.with_suffix(".swp")
        new.write_text(f"# {turn}")
        new.replace(path)

    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        for _ in range(2):
            await seen(changed, save)
            changed.clear()


async def test_an_event_tells_of_a_folder_of_links_that_is_swapped(tmp_path: Path):
    """As Kubernetes does: backends.yaml -> ..data/backends.yaml, ..data -> another folder."""
    mount = tmp_path / "mount"
    path = mount / "backends.yaml"

    def swap(turn: int) -> None:
        version = mount / f"..{turn}"
        version.mkdir()
        (version / "backends.yaml").write_text("services: []\n")
        (mount / "..new").symlink_to(version.name)
        (mount / "..new").replace(mount / "..data")

    mount.mkdir()
    swap(1000)
    path.symlink_to(Path("..data", "backends.yaml"))
    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        for first in (2000, 3000):
            await seen(changed, lambda turn, first=first: swap(first + turn))
            changed.clear()


async def test_an_event_tells_of_a_secret_in_another_folder(path: Path, tmp_path: Path):
    secret = tmp_path / "secrets" / "chat"
    secret.parent.mkdir()
    path.write_text("services: [{name: a, url: http://a, api_key_file: ../secrets/chat}]\n")
    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        await seen(changed, lambda turn: secret.write_text(f"key-{turn}") and None)


async def test_a_secret_that_the_file_names_anew_is_watched_from_then_on(
    path: Path, tmp_path: Path
):
    secret = tmp_path / "secrets" / "chat"
    secret.parent.mkdir()
    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        text = "services: [{name: a, url: http://a, api_key_file: ../secrets/chat}] # "
        await seen(changed, lambda turn: path.write_text(f"{text}{turn}") and None)
        await asyncio.sleep(0.5)  # events of the last write that are still on their way
        changed.clear()
        await seen(changed, lambda turn: secret.write_text(f"key-{turn}") and None)


async def test_the_watching_library_writes_no_line_for_each_event(path: Path, caplog):
    caplog.set_level(logging.INFO)
    async with watched(ConfigWatcher(path, look_s=NEVER_S)) as changed:
        await seen(changed, lambda turn: path.write_text(f"# {turn}") and None)
    assert caplog.messages == []


# -- without events ----------------------------------------------------------------------------


async def test_a_change_between_making_the_watcher_and_running_it_is_seen(path: Path):
    watcher = ConfigWatcher(path, look_s=0.01)
    path.write_text("# changed while the router was starting")
    async with watched(watcher) as changed, asyncio.timeout(30):
        await changed.wait()


def no_events(*_: object, **__: object):
    raise OSError(28, "inotify watch limit reached")


async def silence(*_: object, rust_timeout: int, **__: object):
    """A file system that has events, and tells none."""
    while True:
        await asyncio.sleep(rust_timeout / 1000)
        yield set()


@pytest.mark.parametrize(("events", "logged"), [(no_events, ["config_polled"]), (silence, [])])
async def test_without_events_a_look_at_the_status_finds_each_change(
    path: Path, monkeypatch: pytest.MonkeyPatch, events: Callable, logged: list[str]
):
    """What is broken is said once."""
    monkeypatch.setattr(watching, "awatch", events)
    with capture_logs() as logs:
        async with watched(ConfigWatcher(path, look_s=0.01)) as changed, asyncio.timeout(30):
            for size in range(1, 4):
                path.write_text("#" * size)
                await changed.wait()
                changed.clear()
            path.unlink()
            await changed.wait()
    assert [log["event"] for log in logs] == logged


async def test_other_files_of_the_folder_are_nothing_to_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    told = asyncio.Event()

    async def events(*_: object, **__: object):
        for name in ("router.db-wal", "backends.yaml~", ".backends.yaml.swp"):
            path.with_name(name).write_text("")
            yield {(1, str(path.with_name(name)))}
        told.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(watching, "awatch", events)
    async with watched(ConfigWatcher(path)) as changed, asyncio.timeout(30):
        await told.wait()
        assert not changed.is_set()


async def test_an_event_counts_though_the_status_is_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two writes within one tick of the file system's clock."""

    async def events(*_: object, **__: object):
        yield {(2, str(path))}
        await asyncio.Event().wait()

    monkeypatch.setattr(watching, "awatch", events)
    async with watched(ConfigWatcher(path)) as changed, asyncio.timeout(30):
        await changed.wait()


# -- what is watched ---------------------------------------------------------------------------


def test_every_kind_of_secret_file_is_found_with_variables_put_in(path: Path):
    path.write_text(
        "server: {admin_key_sha256_file: admin}\n"
        "ledger: {url_file: '${DIR}/url'}\n"
        "organizations: [{id: o, keys: [{id: k, sha256_file: /abs/key}]}]\n"
        "services: [{name: a, url: http://a, api_key_file: admin}, {name: b, api_key_file: ''}]\n"
    )
    folder = path.parent
    assert secret_files(path, {"DIR": "d"}) == (
        folder / "admin",
        folder / "d/url",
        Path("/abs/key"),
    )


def test_a_file_that_cannot_be_parsed_keeps_the_secrets_it_named(path: Path):
    path.write_text("server: {admin_key_sha256_file: admin}\n")
    before = view_of(path, {})
    path.write_text("server: {admin_key_")
    after = view_of(path, {}, before)
    assert list(after.stamps) == list(before.stamps) == [path, path.parent / "admin"]


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch):
    before = view_of(path, {})
    monkeypatch.setattr(watching, "secret_files", lambda *_: pytest.fail("it was read"))
    assert view_of(path, {}, before) == before


def test_a_file_that_becomes_readable_is_a_change(path: Path):
    path.chmod(0)
    before = view_of(path, {})
    path.chmod(0o600)
    assert view_of(path, {}, before).stamps != before.stamps


def test_files_that_are_not_there_are_no_error(tmp_path: Path):
    view = view_of(tmp_path / "none" / "backends.yaml", {})
    assert list(view.stamps.values()) == [None]
    assert view.folders == frozenset()


@pytest.mark.timeout(10)
def test_a_pipe_is_looked_at_and_not_waited_for(path: Path):
    path.unlink()
    os.mkfifo(path)
    assert secret_files(path, {}) is None


def test_a_null_in_the_path_of_a_secret_ends_nothing(path: Path):
    path.write_text('services: [{api_key_file: "k\\0"}]\n')
    view = view_of(path, {})
    assert list(view.stamps.values())[1:] == [None]
