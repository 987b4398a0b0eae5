"""An engine that a test decides, and what it tells of containers."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

from router.discovery.container import Container, ContainerEvent, Fate
from router.discovery.engine import EngineError, EngineIdle

NETWORK = "inference-network"


def identifier(number: int) -> str:
    return f"{number:064x}"


def container(number: int = 1, **more: Any) -> Container:
    """One that is a service, on the network, at an address of its own."""
    labels = {"router.enable": "true", **more.pop("labels", {})}
    fields = {
        "id": identifier(number),
        "name": f"c{number}",
        "addresses": {NETWORK: f"172.18.0.{number + 1}"},
        "started_at": 1000,
        "created": f"2026-01-01T00:00:{number:02d}Z",
    }
    return Container(labels=labels, **{**fields, **more})


def event(fate: Fate, number: int = 1, at: int = 2000) -> ContainerEvent:
    return ContainerEvent(identifier(number), fate, at)


class FakeStream:
    """Events that a test puts in; `None` ends it, an exception is raised."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[ContainerEvent | Exception | None] = queue.SimpleQueue()
        self.closed = False

    def __iter__(self) -> Iterator[ContainerEvent]:
        while (item := self.items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        self.closed = True
        self.items.put(None)


class FakeEngine:
    """An engine whose containers are a dict.

    Attributes:
        containers: what an inspection finds, by identifier.
        listed: what the list says; None: all of `containers`.
        own: the container that the router runs in.
        streams: of events, in the order they were opened.
        during_inspect: called in each inspection, in its thread, once it knows what it will say.
        error: raised by everything that asks.
    """

    def __init__(self, *containers: Container) -> None:
        self.containers = {each.id: each for each in containers}
        self.listed: list[str] | None = None
        self.own: Container | None = None
        self.streams: list[FakeStream] = []
        self.during_inspect: Callable[[str], None] | None = None
        self.error: str | None = None
        self.looks = 0
        self.closed = False

    def put(self, each: Container) -> None:
        self.containers[each.id] = each

    def _answer(self) -> None:
        if self.error is not None:
            raise EngineError(self.error)

    def labelled(self) -> list[str]:
        self._answer()
        self.looks += 1
        return list(self.containers) if self.listed is None else self.listed

    def inspect(self, id_: str) -> Container | None:
        self._answer()
        found = self.containers.get(id_)
        if self.during_inspect is not None:
            self.during_inspect(id_)
        return found

    def own_container(self) -> Container | None:
        return self.own

    def events(self) -> FakeStream:
        self._answer()
        self.streams.append(FakeStream())
        return self.streams[-1]

    def close(self) -> None:
        self.closed = True

    # -- what happens to it --------------------------------------------------------------------

    def tell(self, fate: Fate, number: int = 1, at: int = 2000) -> None:
        self.streams[-1].items.put(event(fate, number, at))

    def go_away(self, why: str = "connection refused") -> None:
        """The stream ends without an error; whatever is asked then gets one."""
        self.error = why
        self.streams[-1].items.put(None)

    def fall_silent(self) -> None:
        """Nothing came for so long that the stream was given up."""
        self.streams[-1].items.put(EngineIdle("no answer in time"))
