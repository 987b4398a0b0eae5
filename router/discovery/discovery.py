"""Runs the sources that the settings ask for, and follows the settings when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from router.config import Settings
from router.discovery.docker_source import DockerPlan, DockerSource, docker_plan
from router.discovery.files_source import FilesPlan, FilesSource, files_plan
from router.discovery.status import DOCKER, FILES, Publish, SourceStatus
from router.events import EventLog, Severity
from router.log import get_logger
from router.model import ServiceSpec

_PAUSE_S = 5.0

_log = get_logger("router.discovery")


class Plan(Protocol):
    """What settings ask of a source."""

    @property
    def place(self) -> str:
        """Where it reads; another place needs another source."""


P = TypeVar("P", bound=Plan)
P_contra = TypeVar("P_contra", bound=Plan, contravariant=True)


class Source(Protocol[P_contra]):
    """Publishes services for as long as it runs."""

    @property
    def status(self) -> SourceStatus:
        """As it is now."""

    def configure(self, plan: P_contra) -> None:
        """Take over what is asked now, of the same place."""

    async def run(self) -> None:
        """Publish until cancelled."""


class Discovery:
    """The sources of services beside the configuration file.

    All methods belong to the event loop's thread.

    Args:
        settings: in force.
        publish: takes over the services of a source.
        events: is told what people should know.
    """

    def __init__(self, settings: Settings, publish: Publish, events: EventLog) -> None:
        self._settings = settings
        self._changed = asyncio.Event()
        self._docker: _Slot[DockerPlan] = _Slot(
            DOCKER, lambda plan, gate: DockerSource(plan, gate, events), publish, events
        )
        self._files: _Slot[FilesPlan] = _Slot(
            FILES, lambda plan, gate: FilesSource(plan, gate, events), publish, events
        )

    def configure(self, settings: Settings) -> None:
        """Take over new settings: sources begin, end, or go on with what is asked of them now."""
        self._settings = settings
        self._changed.set()

    def statuses(self) -> Iterator[SourceStatus]:
        """Of each source that runs."""
        for slot in (self._docker, self._files):
            if (status := slot.status) is not None:
                yield status

    async def run(self) -> None:
        """Run the sources until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._docker.follow(docker_plan(self._settings))
                self._files.follow(files_plan(self._settings))
                await self._changed.wait()
        finally:
            await asyncio.gather(self._docker.end(), self._files.end())


class _Gate:
    """Lets a source publish until it is closed: what its threads tell may come late.

    Attributes:
        is_open: whether what is published passes.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self.is_open = True

    def __call__(
        self, source: str, specs: Sequence[ServiceSpec], /, *, dead: Collection[str] = ()
    ) -> None:
        """Pass it on, or not."""
        if self.is_open:
            self._publish(source, specs, dead=dead)


class _Slot(Generic[P]):
    """Where one kind of source runs, or none; its faults end here.

    Args:
        name: of the kind.
        make: a source that publishes through what it is given.
        publish: takes over the services of the source.
        events: is told what people should know.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[P, Publish], Source[P]],
        publish: Publish,
        events: EventLog,
    ) -> None:
        self._name = name
        self._make = make
        self._publish = publish
        self._events = events
        self._plan: P | None = None
        self._gate = _Gate(publish)
        self._source: Source[P] | None = None
        self._task: asyncio.Task[None] | None = None
        self._fault: str | None = None

    @property
    def status(self) -> SourceStatus | None:
        """Of the source; None where none runs."""
        if self._source is None:
            return None
        status = self._source.status
        return status if self._fault is None else replace(status, healthy=False, error=self._fault)

    def follow(self, plan: P | None) -> None:
        """Run what is asked for.

        The services of a source that gives way to another stay until that one publishes.
        """
        last, self._plan = self._plan, plan
        if plan is not None and self._source is not None and last and plan.place == last.place:
            self._configure(self._source, plan)
            return
        was_running = self._task is not None
        self._stop()
        self._source = self._fault = None
        if plan is not None:
            self._gate = _Gate(self._publish)
            self._source = self._make(plan, self._gate)
            self._start(self._source)
        elif was_running:
            self._publish(self._name, ())

    async def end(self) -> None:
        """End the source; what it has published stays."""
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _stop(self) -> None:
        self._gate.is_open = False
        if self._task is not None:
            self._task.cancel()
        self._task = None

    def _start(self, source: Source[P], after_s: float = 0) -> None:
        task = asyncio.create_task(self._run(source, after_s), name=f"discovery: {self._name}")
        self._task = task

    async def _run(self, source: Source[P], pause_s: float) -> None:
        """Run a source until cancelled, and again after a pause where it fails."""
        while True:
            if pause_s:
                await asyncio.sleep(pause_s)
            self._fault = None
            try:
                await source.run()
                self._failed("it ended by itself")
            except Exception as error:  # noqa: BLE001 - a fault in one source must not end the router
                self._failed(_described(error), error)
            pause_s = _PAUSE_S

    def _configure(self, source: Source[P], plan: P) -> None:
        try:
            source.configure(plan)
        except Exception as error:  # noqa: BLE001 - as in `_run`
            self._failed(_described(error), error)
            if self._task is not None:
                self._task.cancel()
            self._start(source, _PAUSE_S)

    def _failed(self, why: str, error: Exception | None = None) -> None:
        """Tell of a fault; what the source published before goes on to count."""
        self._fault = f"it failed ({why}), and is started again every {_PAUSE_S:g} s"
        _log.error("source_failed", source=self._name, why=why, exc_info=error)
        self._events.add("discovery", self._name, self._fault, Severity.ERROR)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
