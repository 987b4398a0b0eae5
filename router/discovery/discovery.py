"""Runs the sources that the settings ask for, and follows the settings when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, Protocol, TypeVar

from router.config import Settings
from router.discovery.docker_source import DockerPlan, DockerSource, docker_plan
from router.discovery.files_source import FilesPlan, FilesSource, files_plan
from router.discovery.status import DOCKER, FILES, Publish, SourceStatus
from router.events import EventLog


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
            lambda plan: DockerSource(plan, publish, events), partial(publish, DOCKER, ())
        )
        self._files: _Slot[FilesPlan] = _Slot(
            lambda plan: FilesSource(plan, publish, events), partial(publish, FILES, ())
        )

    def configure(self, settings: Settings) -> None:
        """Take over new settings: sources begin, end, or go on with what is asked of them now."""
        self._settings = settings
        self._changed.set()

    def statuses(self) -> Iterator[SourceStatus]:
        """Of each source that runs."""
        for slot in (self._docker, self._files):
            if slot.source is not None:
                yield slot.source.status

    async def run(self) -> None:
        """Run the sources until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._docker.follow(docker_plan(self._settings))
                self._files.follow(files_plan(self._settings))
                await self._until_changed()
        finally:
            await asyncio.gather(self._docker.end(), self._files.end())

    async def _until_changed(self) -> None:
        """Wait for other settings; a source that ends by itself is a bug, and raised."""
        changed = asyncio.create_task(self._changed.wait())
        tasks = [slot.task for slot in (self._docker, self._files) if slot.task is not None]
        try:
            await asyncio.wait([changed, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        for task in tasks:
            if task.done():
                task.result()


class _Slot(Generic[P]):
    """Where one kind of source runs, or none.

    Args:
        make: a source.
        withdraw: takes back what the source has published.

    Attributes:
        source: that runs.
        task: in which it does.
    """

    def __init__(self, make: Callable[[P], Source[P]], withdraw: Callable[[], None]) -> None:
        self._make = make
        self._withdraw = withdraw
        self._plan: P | None = None
        self.source: Source[P] | None = None
        self.task: asyncio.Task[None] | None = None

    def follow(self, plan: P | None) -> None:
        """Run what is asked for.

        The services of a source that gives way to another stay until that one publishes.
        """
        last, self._plan = self._plan, plan
        if plan is not None and self.source is not None and last and plan.place == last.place:
            self.source.configure(plan)
            return
        if self.task is not None:
            self.task.cancel()
            if plan is None:
                self._withdraw()
        self.source = self.task = None
        if plan is not None:
            self.source = self._make(plan)
            self.task = asyncio.create_task(self.source.run(), name=f"discovery: {plan.place}")

    async def end(self) -> None:
        """End the source; what it has published stays."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
