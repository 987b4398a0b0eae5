"""Services from a folder of YAML files, each a list of services: read again when one changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from router.config import ConfigurationError, Settings, load_services
from router.config.problems import Problem
from router.config.settings import ServiceSettings
from router.config.watching import View, changed_names, view_of
from router.discovery.status import FILES, Publish, SourceStatus
from router.discovery.threads import in_thread
from router.events import EventLog, Severity
from router.log import get_logger
from router.model import ServiceSpec

_LOOK_S = 1.0
_SUFFIX = ".yaml"
_MOST_FILES = 1000
_MOST_PROBLEMS = 20

_log = get_logger("router.discovery")


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """What the settings ask of this source.

    Attributes:
        folder: of the files.
        health_path: of a service without one of its own.
        taken: names that the configuration file has given to its own services.
    """

    folder: Path
    health_path: str = "/health"
    taken: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """Where it reads."""
        return str(self.folder)


def files_plan(settings: Settings) -> FilesPlan | None:
    """What the settings ask for; None: not to look at files."""
    folder = settings.discovery.files
    if folder is None:
        return None
    taken = frozenset(service.name for service in settings.services)
    return FilesPlan(folder.absolute(), settings.health.path, taken)


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read last.

    Attributes:
        view: its status and that of the secrets that it names.
        services: of the last time it was right.
        problems: what is wrong with it now.
    """

    view: View
    services: tuple[ServiceSettings, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a folder, in the order of their names.

    Attributes:
        files: those that count.
        misnamed: those that do not, and seem to be meant to.
        error: why the folder cannot be read.
    """

    files: Mapping[Path, FileState] = field(default_factory=dict)
    misnamed: frozenset[Path] = frozenset()
    error: str | None = None

    @property
    def warnings(self) -> Iterator[str]:
        """A sentence for each file that does not count and seems to be meant to."""
        for path in sorted(self.misnamed):
            yield f"{path} is not read: name it {path.stem}.yaml"


def read_folder(
    folder: Path,
    last: Folder,
    changed: Collection[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Folder:
    """Look at a folder; files are read again where they, or secrets they name, are not as `last`.

    A file that is wrong keeps the services that it had when it was right. A folder that cannot be
    read keeps all that it had.

    Args:
        folder: holds the files; those ending in `.yaml` count, hidden ones do not.
        last: as it was.
        changed: paths that an event told of: they are read again in any case.
        environ: for variables.
    """
    try:
        found = [path for path in folder.iterdir() if _is_meant(path)]
    except OSError as error:
        why = f"{folder} cannot be read: {error.strerror or error}"
        return Folder(last.files, last.misnamed, why)
    paths = sorted(path for path in found if path.suffix == _SUFFIX)[:_MOST_FILES]
    misnamed = frozenset(sorted(path for path in found if path.suffix != _SUFFIX)[:_MOST_PROBLEMS])
    files: dict[Path, FileState] = {}
    for path in paths:
        known = last.files.get(path)
        view = view_of(path, environ, known.view if known else None)
        is_known = known is not None and known.view.stamps == view.stamps
        if known is not None and is_known and view.names.isdisjoint(changed):
            files[path] = known
        elif os.path.lexists(path):  # not gone meanwhile
            files[path] = _read(path, view, known, environ)
    return Folder(files, misnamed)


def _is_meant(path: Path) -> bool:
    """Whether it counts, or was given another ending for YAML by somebody who thinks it does."""
    is_yaml = path.suffix.lower() in {_SUFFIX, ".yml"}
    return is_yaml and not path.name.startswith(".") and _is_file(path)


def _is_file(path: Path) -> bool:
    """Whether it can be read to an end: no folder, and no pipe, which would be waited for.

    A link to where nobody may look counts: that is a problem of this file, not of the folder.
    """
    try:
        return path.is_file()
    except OSError:
        return True


def _read(path: Path, view: View, known: FileState | None, environ: Mapping[str, str]) -> FileState:
    try:
        return FileState(view, load_services(path, environ))
    except ConfigurationError as error:
        return FileState(view, known.services if known else (), error.problems)


def merge(folder: Folder, plan: FilesPlan) -> tuple[tuple[ServiceSpec, ...], tuple[Problem, ...]]:
    """The services of all files, and names that stand in two of them: the first one has it.

    What the configuration file has a service for is left out here.
    """
    specs: dict[str, ServiceSpec] = {}
    problems: list[Problem] = []
    owners: dict[str, Path] = {}
    for path, state in folder.files.items():
        for index, service in enumerate(state.services):
            owner = owners.setdefault(service.name, path)
            if owner != path:
                message = f"{service.name!r} stands in {owner} already; give each its own name"
                problems.append(Problem(str(path), None, f"[{index}].name", message))
            elif service.name not in plan.taken:
                spec = service.to_spec(health_path=plan.health_path, source=FILES)
                specs[service.name] = spec
    return tuple(specs.values()), tuple(problems)


class FilesSource:
    """Publishes the services of a folder's files.

    Args:
        plan: what is asked of it.
        publish: takes the services.
        events: is told what people should know.
        look_s: between two looks at the files' status, for events get lost.
    """

    def __init__(
        self, plan: FilesPlan, publish: Publish, events: EventLog, *, look_s: float = _LOOK_S
    ) -> None:
        self._plan = plan
        self._publish = publish
        self._events = events
        self._look_s = look_s
        self._folder = Folder(error="it was not read yet")
        self._published: tuple[ServiceSpec, ...] | None = None
        self._told: dict[str, tuple[Problem, ...]] = {}
        self._generation = 0

    @property
    def status(self) -> SourceStatus:
        """As it is now."""
        services = len(self._published or ())
        bad = next((state for state in self._folder.files.values() if state.problems), None)
        error = self._folder.error or (str(bad.problems[0]) if bad is not None else None)
        return SourceStatus(FILES, error is None, self._generation, services, error)

    def configure(self, plan: FilesPlan) -> None:
        """Take over what is asked now of the same folder."""
        self._plan = plan
        if self._published is not None:
            self._hand_over()

    async def run(self) -> None:
        """Read the folder, and again whenever it changes, until cancelled."""
        while True:
            await self._look(())
            try:
                await self._follow_events()
            except (OSError, RuntimeError, ExceptionGroup) as error:
                _log.debug("folder_polled", why=str(error), folder=str(self._plan.folder))
            await asyncio.sleep(self._look_s)

    async def _follow_events(self) -> None:
        """Watch the folder until it cannot be watched.

        Raises:
            OSError: it is not there, or no events are to be had.
            RuntimeError, ExceptionGroup: of the watcher's own thread.
        """
        folder = str(self._plan.folder)
        async with aclosing(changed_names([folder], self._look_s)) as changes:
            async for names in changes:
                await self._look(names)
                if self._folder.error is not None:
                    return

    async def _look(self, changed: Collection[str]) -> None:
        last, plan = self._folder, self._plan
        self._folder = await in_thread(lambda: read_folder(plan.folder, last, changed))
        self._tell_folder(last.error)
        for path in sorted(self._folder.misnamed - last.misnamed):
            _log.warning(
                "services_file_ignored", file=str(path), remedy=f"name it {path.stem}.yaml"
            )
        if self._folder.error is None:
            self._hand_over()

    # -- what changed --------------------------------------------------------------------------

    def _hand_over(self) -> None:
        specs, doubles = merge(self._folder, self._plan)
        self._tell_problems(doubles)
        if specs != self._published:
            self._published = specs
            self._generation += 1
            self._publish(FILES, specs)
            _log.info("services_of_files", services=len(specs), folder=str(self._plan.folder))

    def _tell_folder(self, was: str | None) -> None:
        error = self._folder.error
        if error == was:
            return
        if error is None:
            _log.info("discovery_follows", source=FILES, folder=str(self._plan.folder))
            return
        kept = len(self._published or ())
        _log.error("discovery_lost", source=FILES, why=error, services_kept=kept)
        text = f"{error}; the {kept} services they told of go on to count"
        self._events.add("discovery", FILES, text, Severity.ERROR)

    def _tell_problems(self, doubles: tuple[Problem, ...]) -> None:
        """Tell once of each file that is wrong, and of one that is right again."""
        problems = {
            str(path): (*state.problems, *(each for each in doubles if each.file == str(path)))
            for path, state in self._folder.files.items()
        }
        for file, found in problems.items():
            if found and self._told.get(file) != found:
                self._tell_file(file, found)
            elif not found and self._told.get(file):
                self._events.add("discovery", file, "is right again")
        self._told = {file: found for file, found in problems.items() if found}

    def _tell_file(self, file: str, problems: tuple[Problem, ...]) -> None:
        for problem in problems[:_MOST_PROBLEMS]:
            _log.error(
                "services_file_refused",
                file=file,
                line=problem.line,
                key=problem.key,
                problem=problem.message,
                consequence="the services it had when it was right go on to count",
            )
        text = f"is wrong, so what it said before goes on to count: {problems[0]}"
        self._events.add("discovery", file, text, Severity.ERROR)
