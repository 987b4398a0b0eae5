"""Services from the labels of containers: finds the engine again, tells people, publishes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from router.config.secret_files import read_secret
from router.config.settings import Settings
from router.discovery.engine import DockerEngine, Engine, EngineError
from router.discovery.labels import LabelProblem, View
from router.discovery.registry import Change, Registry
from router.discovery.session import Session
from router.discovery.status import DOCKER, Publish, SourceStatus
from router.discovery.threads import in_thread
from router.events import EventLog, Severity
from router.log import get_logger
from router.model import ServiceSpec

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
_MOST_TOLD = 1000

_log = get_logger("router.discovery")


@dataclass(frozen=True, slots=True)
class DockerPlan:
    """What the settings ask of this source.

    Attributes:
        endpoint: of the engine.
        view: how containers are looked at.
        taken: names that the configuration file has given to its own services.
    """

    endpoint: str
    view: View
    taken: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """Where it reads."""
        return self.endpoint


def docker_plan(settings: Settings) -> DockerPlan | None:
    """What the settings ask for; None: not to look at Docker."""
    docker = settings.discovery.docker
    if not docker.enabled:
        return None
    return DockerPlan(
        docker.endpoint,
        View(docker.network, health_path=settings.health.path),
        frozenset(service.name for service in settings.services),
    )


class DockerSource:
    """Publishes a service for every container that its labels make one.

    While the engine is away what was known goes on to count.

    Args:
        plan: what is asked of it.
        publish: takes the services.
        events: is told what people should know.
        connect: makes the engine of an endpoint; blocking.
    """

    def __init__(
        self,
        plan: DockerPlan,
        publish: Publish,
        events: EventLog,
        connect: Callable[[str], Engine] = DockerEngine,
    ) -> None:
        self._plan = plan
        self._publish = publish
        self._events = events
        self._connect = connect
        self._registry = Registry()
        self._session: Session | None = None
        self._published: tuple[ServiceSpec, ...] | None = None
        self._told: dict[str, tuple[LabelProblem, ...]] = {}
        self._generation = 0
        self._error: str | None = "it has not answered yet"
        self._was_lost = False
        self._pause_s = _FIRST_PAUSE_S

    @property
    def status(self) -> SourceStatus:
        """As it is now."""
        services = len(self._published or ())
        return SourceStatus(DOCKER, self._error is None, self._generation, services, self._error)

    def configure(self, plan: DockerPlan) -> None:
        """Take over what is asked now; a container that is no longer asked for drains."""
        last, self._plan = self._plan, plan
        if plan.taken != last.taken and self._published is not None:
            self._hand_over(())
        if plan.view != last.view and self._session is not None:
            self._session.look_again()

    async def run(self) -> None:
        """Follow the engine, and find it again whenever it is lost, until cancelled."""
        while True:
            try:
                await self._follow()
            except EngineError as error:
                self._lost(str(error))
            await asyncio.sleep(self._pause_s * random.uniform(0.9, 1.1))  # noqa: S311
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _follow(self) -> None:
        engine = await in_thread(partial(self._connect, self._plan.endpoint))
        try:
            own = await in_thread(engine.own_container)
            networks: Collection[str] = () if own is None else own.addresses
            self._session = Session(
                engine,
                self._registry,
                lambda: replace(self._plan.view, inside=self._plan.view.network in networks),
                read_secret,
                self._changed,
            )
            await self._session.run()
        finally:
            self._session = None
            engine.close()

    # -- what changed --------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        if self._error is not None:
            self._found_again()
        for went in change.went:
            _log.info("container_out", service=went.service, container=went.container, why=went.why)
            text = f"takes no more requests: the container {went.container} {went.why}"
            self._events.add("discovery", went.service, text, Severity.WARNING)
        for came in change.came:
            _log.info(
                "container_listed",
                service=came.spec.name,
                container=came.container,
                url=came.spec.url,
                gpu=came.spec.gpu,
            )
            text = f"is the container {came.container} at {came.spec.url}"
            self._events.add("discovery", came.spec.name, text)
        self._tell_problems()
        self._hand_over([went.service for went in change.went])

    def _hand_over(self, dead: Collection[str]) -> None:
        """Publish what counts now; what was started again is gone for a moment, so starts anew."""
        specs = self._registry.specs(self._plan.taken)
        if dead:
            self._put([spec for spec in specs if spec.name not in dead], dead)
        self._put(specs, ())

    def _put(self, specs: Collection[ServiceSpec], dead: Collection[str]) -> None:
        listed = tuple(sorted(specs, key=lambda spec: spec.name))
        if listed != self._published:
            self._published = listed
            self._generation += 1
            self._publish(DOCKER, listed, dead=dead)

    def _tell_problems(self) -> None:
        """Warn once of every container with labels that are wrong."""
        complaints = self._registry.problems[:_MOST_TOLD]
        for each in complaints:
            if self._told.get(each.id) == each.problems:
                continue
            for problem in each.problems:
                _log.warning(
                    "container_left_out" if each.is_out else "container_label_unknown",
                    container=each.container,
                    label=problem.label,
                    problem=problem.message,
                )
            if each.is_out:
                text = f"is a container with labels, and no service: {each.problems[0]}"
                self._events.add("discovery", each.container, text, Severity.WARNING)
        self._told = {each.id: each.problems for each in complaints}

    # -- the engine ----------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        if self._error == why:
            return
        self._error = why
        kept = len(self._published or ())
        _log.warning("discovery_lost", source=DOCKER, why=why, services_kept=kept)
        if not self._was_lost:
            text = f"is away ({why}); the {kept} services it told of go on to count"
            self._events.add("discovery", DOCKER, text, Severity.ERROR)
        self._was_lost = True

    def _found_again(self) -> None:
        self._error = None
        self._pause_s = _FIRST_PAUSE_S
        _log.info("discovery_follows", source=DOCKER, endpoint=self._plan.endpoint)
        if self._was_lost:
            self._events.add("discovery", DOCKER, "is back, and was looked through")
        self._was_lost = False
