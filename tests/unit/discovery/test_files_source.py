"""A folder of files, each a list of services: what is read, kept and told."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.discovery.files_source import FilesPlan, FilesSource, Folder, merge, read_folder
from router.events import EventLog
from router.model import ServiceSpec


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "services.d"
    path.mkdir()
    return path


def write(folder: Path, file: str, *names: str, text: str = "") -> Path:
    """Write a file as launchers should: whole, under another name, and then moved."""
    rows = "".join(f"- {{name: {name}, url: 'http://{name}:8000'}}\n" for name in names)
    hidden = folder / f".{file}.new"
    hidden.write_text(text or rows)
    hidden.rename(folder / file)
    return folder / file


def names(folder: Folder, plan: FilesPlan | None = None) -> list[str]:
    specs, _ = merge(folder, plan or FilesPlan(Path("d")))
    return [spec.name for spec in specs]


# -- reading -------------------------------------------------------------------------------------


def test_the_services_of_all_files_count_in_the_order_of_their_names(folder):
    write(folder, "b.yaml", "b1")
    write(folder, "a.yaml", "a1", "a2")
    assert names(read_folder(folder, Folder())) == ["a1", "a2", "b1"]


def test_other_files_hidden_ones_and_folders_do_not_count(folder):
    write(folder, "a.yaml", "a")
    for name in ("b.yml", "c.txt", "d.yaml~", ".e.yaml"):
        write(folder, name, "x")
    (folder / "f.yaml").mkdir()
    assert names(read_folder(folder, Folder())) == ["a"]


@pytest.mark.parametrize("text", ["\n", "# nothing yet\n", "---\n"])
def test_a_file_without_content_keeps_what_it_said_when_it_was_right(folder, text):
    path = write(folder, "a.yaml", "a")
    found = read_folder(folder, Folder())
    write(folder, "a.yaml", text=text)
    found = read_folder(folder, found)
    assert names(found) == ["a"]
    assert [str(each) for each in found.files[path].problems] == [
        f"{path}:1: is empty; write [] for no services"
    ]


def test_an_empty_list_is_no_services(folder):
    path = write(folder, "a.yaml", "a")
    found = read_folder(folder, Folder())
    write(folder, "a.yaml", text="[]\n")
    found = read_folder(folder, found)
    assert names(found) == []
    assert not found.files[path].problems


def test_a_pipe_is_not_waited_for(folder):
    write(folder, "a.yaml", "a")
    os.mkfifo(folder / "b.yaml")
    assert names(read_folder(folder, Folder())) == ["a"]


@pytest.mark.timeout(10)
def test_a_pipe_in_the_place_of_a_secret_is_a_problem_of_the_file(folder):
    path = write(folder, "a.yaml", text="- {name: a, url: http://a:1, api_key_file: key}\n")
    os.mkfifo(folder / "key")
    (problem,) = read_folder(folder, Folder()).files[path].problems
    assert "no regular file" in problem.message


def test_a_link_to_where_nobody_may_look_is_a_problem_of_this_file_alone(folder, monkeypatch):
    write(folder, "a.yaml", "a")
    path = write(folder, "b.yaml", "b")
    found = read_folder(folder, Folder())

    def refusing(call: Callable):
        def checked(named, *args, **more):
            if str(named) == str(path):
                raise PermissionError(errno.EACCES, "Permission denied")
            return call(named, *args, **more)

        return checked

    for owner, name in ((Path, "stat"), (os, "open")):  # by its mode alone root would be let in
        monkeypatch.setattr(owner, name, refusing(getattr(owner, name)))
    found = read_folder(folder, found)
    assert found.error is None
    assert names(found) == ["a", "b"]
    (problem,) = found.files[path].problems
    assert "Permission denied" in problem.message


def test_a_null_in_the_path_of_a_secret_is_a_problem_of_the_file(folder):
    text = '- {name: a, url: "http://a:1", api_key_file: "k\\0"}\n'
    path = write(folder, "a.yaml", text=text)
    (problem,) = read_folder(folder, Folder()).files[path].problems
    assert problem.key == "[0].api_key_file"


def test_a_bad_file_tells_its_line_and_key_and_the_others_go_on(folder):
    write(folder, "a.yaml", "a")
    bad = write(folder, "b.yaml", text="- name: b\n  url: nonsense\n")
    found = read_folder(folder, Folder())
    (problem,) = found.files[bad].problems
    assert (problem.file, problem.line, problem.key) == (str(bad), 2, "[0].url")
    assert names(found) == ["a"]


def test_a_file_that_turns_bad_keeps_what_it_said_when_it_was_right(folder):
    path = write(folder, "a.yaml", "old")
    found = read_folder(folder, Folder())
    write(folder, "a.yaml", text="- nonsense\n")
    found = read_folder(folder, found)
    assert names(found) == ["old"]
    assert found.files[path].problems
    write(folder, "a.yaml", "new")
    found = read_folder(folder, found)
    assert names(found) == ["new"]
    assert not found.files[path].problems


def test_a_file_that_is_gone_has_no_services(folder):
    path = write(folder, "a.yaml", "a")
    found = read_folder(folder, Folder())
    path.unlink()
    assert names(read_folder(folder, found)) == []


def test_a_folder_that_cannot_be_read_keeps_all_and_says_why(folder, tmp_path):
    write(folder, "a.yaml", "a")
    found = read_folder(folder, Folder())
    folder.rename(tmp_path / "moved")
    found = read_folder(folder, found)
    assert names(found) == ["a"]
    assert found.error == f"{folder} cannot be read: No such file or directory"


def test_a_file_is_read_again_only_when_it_or_its_secret_is_another(folder, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("first")
    path = write(folder, "a.yaml", text="- {name: a, url: 'http://a:1', api_key_file: ../key}\n")
    found = read_folder(folder, Folder())
    assert read_folder(folder, found).files[path] is found.files[path]
    secret.write_text("second!")
    specs, _ = merge(read_folder(folder, found), FilesPlan(folder))
    assert specs[0].api_key == "second!"


def test_a_file_that_an_event_names_is_read_again_though_its_status_is_the_same(folder):
    path = write(folder, "a.yaml", "one")
    found = read_folder(folder, Folder())
    assert read_folder(folder, found, {str(path)}).files[path] is not found.files[path]


def test_variables_are_put_in(folder):
    write(folder, "a.yaml", text="- {name: a, url: 'http://${HOST}:1'}\n")
    specs, _ = merge(read_folder(folder, Folder(), environ={"HOST": "h"}), FilesPlan(folder))
    assert specs[0].url == "http://h:1"


# -- all files together --------------------------------------------------------------------------


def test_services_carry_their_source_and_the_health_path_of_the_settings(folder):
    write(folder, "a.yaml", "a")
    specs, _ = merge(read_folder(folder, Folder()), FilesPlan(folder, health_path="/alive"))
    assert specs == (ServiceSpec("a", "http://a:8000", "files", health_path="/alive"),)


def test_a_name_in_two_files_belongs_to_the_first_and_the_second_is_told(folder):
    write(folder, "a.yaml", "same")
    write(folder, "b.yaml", "same", "other")
    specs, problems = merge(read_folder(folder, Folder()), FilesPlan(folder))
    assert [spec.name for spec in specs] == ["same", "other"]
    (problem,) = problems
    assert (problem.file, problem.key) == (str(folder / "b.yaml"), "[0].name")


def test_what_the_configuration_file_has_is_left_to_it(folder):
    write(folder, "a.yaml", "a", "b")
    plan = FilesPlan(folder, taken=frozenset({"a"}))
    assert names(read_folder(folder, Folder()), plan) == ["b"]


# -- following -----------------------------------------------------------------------------------


class World:
    def __init__(self, plan: FilesPlan) -> None:
        self.times: list[list[str]] = []
        self.events = EventLog()
        self.source = FilesSource(plan, self._publish, self.events, look_s=0.05)

    def _publish(self, source, specs, /, *, dead=()) -> None:
        assert (source, tuple(dead)) == ("files", ())
        self.times.append([spec.name for spec in specs])

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not ready():
                await asyncio.sleep(0.005)

    async def until_names(self, *names: str) -> None:
        await self.until(lambda: bool(self.times) and self.times[-1] == list(names))

    def texts(self) -> list[str]:
        return [event.text for event in self.events.since(0)]


@asynccontextmanager
async def following(folder: Path) -> AsyncIterator[World]:
    world = World(FilesPlan(folder))
    task = asyncio.create_task(world.source.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_files_that_come_change_and_go_are_followed(folder):
    async with following(folder) as world:
        await world.until_names()
        write(folder, "a.yaml", "a")
        await world.until_names("a")
        write(folder, "a.yaml", "a", "b")
        await world.until_names("a", "b")
        (folder / "a.yaml").unlink()
        await world.until_names()
        assert world.source.status.generation == 4


async def test_a_bad_file_is_an_event_and_makes_the_source_unhealthy_until_it_is_right(folder):
    write(folder, "a.yaml", "a")
    async with following(folder) as world:
        await world.until_names("a")
        write(folder, "a.yaml", text="- nonsense\n")
        await world.until(lambda: not world.source.status.healthy)
        await asyncio.sleep(0.2)  # some more looks
        assert "a.yaml:1" in world.texts()[0]
        assert len(world.texts()) == 1
        assert world.source.status.services == 1
        write(folder, "a.yaml", "a")
        await world.until(lambda: world.source.status.healthy)
        assert world.texts()[1:] == ["is right again"]


async def test_a_folder_that_comes_later_is_followed_from_then_on(tmp_path):
    folder = tmp_path / "later"
    async with following(folder) as world:
        await world.until(lambda: "cannot be read" in (world.source.status.error or ""))
        assert world.times == []
        folder.mkdir()
        write(folder, "a.yaml", "a")
        await world.until_names("a")
        assert world.source.status.healthy


async def test_a_folder_that_goes_away_keeps_its_services(folder, tmp_path):
    write(folder, "a.yaml", "a")
    async with following(folder) as world:
        await world.until_names("a")
        folder.rename(tmp_path / "moved")
        await world.until(lambda: not world.source.status.healthy)
        assert world.times == [["a"]]
        (tmp_path / "moved").rename(folder)
        await world.until(lambda: world.source.status.healthy)


async def test_a_name_that_the_configuration_takes_is_given_up_at_once(folder):
    write(folder, "a.yaml", "a", "b")
    async with following(folder) as world:
        await world.until_names("a", "b")
        world.source.configure(FilesPlan(folder, taken=frozenset({"a"})))
        assert world.times[-1] == ["b"]


def test_a_file_with_another_ending_of_yaml_is_known_as_misnamed(folder):
    write(folder, "a.yaml", "a")
    for name in ("b.yml", "c.YAML", ".hidden.yml", "d.txt"):
        write(folder, name, "x")
    found = read_folder(folder, Folder())
    assert names(found) == ["a"]
    assert {path.name for path in found.misnamed} == {"b.yml", "c.YAML"}
    assert f"{folder / 'b.yml'} is not read: name it b.yaml" in found.warnings


async def test_a_misnamed_file_is_warned_of_once(folder):
    path = write(folder, "b.yml", "b")
    with capture_logs() as lines:
        async with following(folder) as world:
            write(folder, "a.yaml", "a")
            await world.until_names("a")
    (told,) = [line for line in lines if line["event"] == "services_file_ignored"]
    assert (told["file"], told["log_level"]) == (str(path), "warning")
