"""An engine is followed, lost and found again; threads and loop as they are, the engine a fake."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from router.discovery import session
from router.discovery.container import Fate
from router.discovery.docker_source import DockerPlan, DockerSource
from router.discovery.engine import EngineError
from router.discovery.labels import View
from router.discovery.registry import Registry
from router.events import EventLog
from router.model import ServiceSpec
from unit.discovery.engine_fakes import NETWORK, FakeEngine, container, event, identifier

PLAN = DockerPlan("unix:///docker.sock", View(NETWORK))


class Fleet:
    """Takes what is published, and remembers each time."""

    def __init__(self) -> None:
        self.times: list[tuple[list[str], set[str]]] = []
        self.specs: dict[str, ServiceSpec] = {}

    def publish(
        self, source: str, specs: Sequence[ServiceSpec], /, *, dead: Collection[str] = ()
    ) -> None:
        assert source == "docker"
        self.specs = {spec.name: spec for spec in specs}
        self.times.append((list(self.specs), set(dead)))

    @property
    def names(self) -> list[str]:
        return list(self.specs)


class Following:
    """A source that runs, and all that is around it."""

    def __init__(self, engine: FakeEngine, plan: DockerPlan) -> None:
        self.engine = engine
        self.fleet = Fleet()
        self.events = EventLog()
        self.endpoints: list[str] = []
        self.refused: str | None = None
        self.source = DockerSource(plan, self.fleet.publish, self.events, self._connect)

    def _connect(self, endpoint: str) -> FakeEngine:
        self.endpoints.append(endpoint)
        if self.refused is not None:
            raise EngineError(self.refused)
        return self.engine

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not ready():
                await asyncio.sleep(0.002)

    async def until_names(self, *names: str) -> None:
        await self.until(lambda: self.fleet.names == list(names))

    def texts(self) -> list[str]:
        return [event.text for event in self.events.since(0)]


@asynccontextmanager
async def following(
    *containers, plan: DockerPlan = PLAN, refused: str | None = None
) -> AsyncIterator[Following]:
    world = Following(FakeEngine(*containers), plan)
    world.refused = refused
    task = asyncio.create_task(world.source.run())
    try:
        if refused is None:
            await world.until(lambda: world.source.status.healthy and bool(world.engine.streams))
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def settled_late(monkeypatch):
    """No second look that would make good what events should have done."""
    monkeypatch.setattr(session, "_SETTLED_S", 1000.0)


async def test_what_runs_at_the_start_is_published():
    async with following(container(1), container(2)) as world:
        assert world.fleet.names == ["c1", "c2"]
        assert world.source.status == dataclasses.replace(
            world.source.status, healthy=True, services=2, generation=1, error=None
        )


async def test_an_engine_without_containers_publishes_an_empty_list():
    async with following() as world:
        assert world.fleet.times == [([], set())]


async def test_what_starts_is_looked_at_and_published(settled_late):
    async with following() as world:
        world.engine.put(container(1))
        world.engine.tell(Fate.CHANGED)
        await world.until_names("c1")
        assert world.engine.looks == 1


@pytest.mark.parametrize("fate", [Fate.DIED, Fate.PAUSED, Fate.UNHEALTHY, Fate.REMOVED])
async def test_what_ends_is_out_by_the_event_alone_and_named_as_dead(settled_late, fate):
    async with following(container(1), container(2)) as world:
        hold = threading.Event()
        world.engine.during_inspect = lambda _: hold.wait(5)
        world.engine.tell(fate)
        await world.until_names("c2")
        hold.set()
        assert world.fleet.times[-1] == (["c2"], {"c1"})


async def test_a_look_that_began_before_a_pause_does_not_undo_it(settled_late):
    async with following(container(1)) as world:
        began, hold = threading.Event(), threading.Event()

        def inspect_slowly(_: str) -> None:
            began.set()
            hold.wait(5)

        world.engine.during_inspect = inspect_slowly
        world.engine.tell(Fate.CHANGED)
        await asyncio.to_thread(began.wait, 5)
        world.engine.tell(Fate.PAUSED)
        await world.until_names()
        world.engine.during_inspect = None
        world.engine.put(container(1, out="paused"))
        hold.set()
        world.engine.put(container(2))
        world.engine.tell(Fate.CHANGED, 2)
        await world.until_names("c2")
        assert [names for names, _ in world.fleet.times] == [["c1"], [], ["c2"]]


async def test_what_was_started_again_while_nobody_listened_is_gone_for_a_moment():
    async with following(container(1), container(2)) as world:
        world.engine.put(container(1, started_at=5000))
        world.engine.fall_silent()
        await world.until(lambda: len(world.fleet.times) == 3)
        assert world.fleet.times[1:] == [(["c2"], {"c1"}), (["c1", "c2"], set())]


async def test_a_silent_stream_is_opened_anew_and_everything_looked_at(monkeypatch):
    monkeypatch.setattr(session, "_SETTLED_S", 0.01)
    async with following(container(1)) as world:
        await world.until(lambda: world.engine.looks == 2)
        world.engine.fall_silent()
        await world.until(lambda: len(world.engine.streams) == 2 and world.engine.looks == 3)
        assert world.source.status.healthy
        assert len(world.endpoints) == 1


# -- the engine goes and comes -------------------------------------------------------------------


async def test_a_stream_that_ends_without_an_error_keeps_what_was_known():
    async with following(container(1)) as world:
        world.engine.go_away("connection refused")
        await world.until(lambda: not world.source.status.healthy)
        assert world.fleet.names == ["c1"]
        assert world.source.status.services == 1


async def test_an_engine_that_is_back_is_looked_through():
    async with following(container(1), container(2)) as world:
        world.engine.go_away()
        await world.until(lambda: not world.source.status.healthy)
        del world.engine.containers[identifier(1)]
        world.engine.put(container(3))
        world.engine.error = None
        await world.until_names("c2", "c3")
        assert world.source.status.healthy
        assert world.source.status.error is None


async def test_people_are_told_once_that_docker_is_away_and_that_it_is_back():
    async with following(container(1)) as world:
        world.engine.go_away()
        await world.until(lambda: len(world.endpoints) > 2)
        world.engine.error = None
        await world.until(lambda: world.source.status.healthy)
        told = [event.text for event in world.events.since(0) if event.subject == "docker"]
        assert [text.partition(" (")[0].partition(",")[0] for text in told] == [
            "is away",
            "is back",
        ]


async def test_an_engine_that_stays_away_is_logged_once():
    with structlog.testing.capture_logs() as lines:
        async with following(container(1), refused="no such file") as world:
            await world.until(lambda: len(world.endpoints) > 2)
    assert [line["event"] for line in lines].count("discovery_lost") == 1


async def test_what_comes_late_from_a_connection_that_is_over_is_passed_over():
    registry, told = Registry(), []
    engine = FakeEngine(container(1))
    over = session.Session(engine, registry, lambda: PLAN.view, Path.read_text, told.append)
    engine.error = "connection refused"
    with pytest.raises(EngineError):
        await over.run()
    over._on_event(event(Fate.DIED))
    assert told == []
    assert registry._ended == {}


async def test_without_an_engine_at_the_start_nothing_is_published_and_it_is_tried_again():
    async with following(container(1), refused="no such file") as world:
        await world.until(lambda: len(world.endpoints) > 1)
        assert world.fleet.times == []
        assert world.source.status.error == "no such file"
        world.refused = None
        await world.until_names("c1")


async def test_what_it_is_asked_with_is_closed_when_it_ends():
    async with following(container(1)) as world:
        pass
    assert world.engine.closed
    assert world.engine.streams[-1].closed


# -- settings ------------------------------------------------------------------------------------


async def test_a_router_in_the_network_reaches_containers_by_name():
    engine = FakeEngine(container(1))
    engine.own = container(9)
    world = Following(engine, PLAN)
    task = asyncio.create_task(world.source.run())
    await world.until(lambda: bool(world.fleet.specs))
    assert world.fleet.specs["c1"].url == "http://c1:8000"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_name_that_the_file_takes_drains_here_and_comes_back_when_it_is_given_up():
    async with following(container(1), container(2)) as world:
        world.source.configure(dataclasses.replace(PLAN, taken=frozenset({"c1"})))
        assert world.fleet.times[-1] == (["c2"], set())
        world.source.configure(PLAN)
        assert world.fleet.names == ["c1", "c2"]


async def test_a_name_that_the_file_gives_up_while_the_engine_is_away_is_a_service_again():
    plan = dataclasses.replace(PLAN, taken=frozenset({"c1"}))
    async with following(container(1), container(2), plan=plan) as world:
        world.engine.go_away()
        await world.until(lambda: not world.source.status.healthy)
        assert world.fleet.names == ["c2"]
        world.source.configure(PLAN)
        assert world.fleet.names == ["c1", "c2"]


async def test_another_health_path_is_taken_over_by_what_runs():
    async with following(container(1)) as world:
        plan = dataclasses.replace(PLAN, view=View(NETWORK, health_path="/alive"))
        world.source.configure(plan)
        await world.until(lambda: world.fleet.specs["c1"].health_path == "/alive")


# -- what people are told ------------------------------------------------------------------------


async def test_comings_and_goings_are_events():
    async with following(container(1)) as world:
        world.engine.tell(Fate.DIED)
        await world.until_names()
        assert world.texts() == [
            "is the container c1 at http://172.18.0.2:8000",
            "takes no more requests: the container c1 died",
        ]


async def test_a_bad_label_is_told_once(settled_late):
    async with following(container(1, labels={"router.port": "x"})) as world:
        world.engine.put(container(2))
        world.engine.tell(Fate.CHANGED, 2)
        await world.until_names("c2")
        told = [text for text in world.texts() if "router.port" in text]
        problem = "router.port: must be a whole number (it is 'x')"
        assert told == [f"is a container with labels, and no service: {problem}"]
