"""A forwarder over fake engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.config.settings import EjectionSettings, LimitsSettings
from router.fleet.fleet import Fleet
from router.fleet.service import Health
from router.metrics import Metrics
from router.model import ServiceSpec, ServiceState
from router.proxy.account import Account
from router.proxy.answer import ConnectFailed, Disconnected, Head
from router.proxy.forward import Forwarder
from router.proxy.meter import Unmetered
from router.proxy.relay import Relay
from router.proxy.upstream_connection import Target
from unit.proxy.proxy_fakes import FakeExchange, call_of

Play = Callable[[Relay], None]
JSON = b"content-type: application/json\r\n"


def head(status: int, length: int | None = None) -> Head:
    return Head(status, b"R", JSON, length, False, None)


def answers(status: int, body: bytes = b"{}") -> Play:
    def play(relay: Relay) -> None:
        relay.on_head(head(status, len(body)))
        relay.on_data(body)
        relay.on_end()

    return play


def breaks(relay: Relay) -> None:
    relay.on_broken(Disconnected("closed by the engine"))


def breaks_after_head(relay: Relay) -> None:
    relay.on_head(head(200))
    breaks(relay)


def breaks_after_a_byte(relay: Relay) -> None:
    relay.on_head(head(200))
    relay.on_data(b"{")
    breaks(relay)


def says_nothing(relay: Relay) -> None:
    """The engine is at work."""


def refuses(relay: Relay) -> None:
    """No connection: the pool looks for this one before it connects."""


class Connection:
    """Plays its part once a request is sent over it."""

    def __init__(self, play: Play, *, reused: bool) -> None:
        self.play = play
        self.reused = reused
        self.aborted = False
        self.listener: Relay | None = None

    @property
    def is_unanswered(self) -> bool:
        return self.listener is None or self.listener.head is None

    def send(self, _head, _body, listener) -> None:
        self.listener = listener
        asyncio.get_running_loop().call_soon(self._play)

    def _play(self) -> None:
        if not self.aborted:
            assert self.listener is not None
            self.play(self.listener)

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Pool:
    """One engine: what it does on each new connection, and on one that waits in the pool."""

    def __init__(self, *plays: Play, idle: Play | None = None) -> None:
        self.target = Target.of("http://engine:8000")
        self.plays = list(plays)
        self.idle = idle
        self.opened: list[Connection] = []
        self.gate: asyncio.Event | None = None
        self.connecting = asyncio.Event()

    def start_of(self, path, key) -> bytes:
        return b"POST / HTTP/1.1\r\n"

    def take_idle(self) -> Connection | None:
        play, self.idle = self.idle, None
        if play is None:
            return None
        self.opened.append(Connection(play, reused=True))
        return self.opened[-1]

    async def connect(self) -> Connection:
        self.connecting.set()
        if self.gate is not None:
            await self.gate.wait()
        play = self.plays.pop(0)
        if play is refuses:
            raise ConnectFailed("refused")
        self.opened.append(Connection(play, reused=False))
        return self.opened[-1]


class Charging(Unmetered):
    """Notes what each close is told: the answer's service, or nothing."""

    def __init__(self) -> None:
        self.charged: list[str | None] = []

    def close(self, answered) -> None:
        self.charged.append(None if answered is None else answered.service.name)


class House:
    """A forwarder over engines `a`, `b`, ... that are tried in this order."""

    def __init__(self, *pools: Pool) -> None:
        names = "abcdef"[: len(pools)]
        self.pools = dict(zip(names, pools, strict=True))
        self.metrics = Metrics("0")
        self.fleet = Fleet(
            self.metrics,
            policy=lambda free, _turn: free[0],
            aliases={},
            ejection=EjectionSettings(),
        )
        self.fleet.publish("yaml", [ServiceSpec(n, f"http://{n}", "yaml", ("m",)) for n in names])
        for service in self.fleet.services:
            self.fleet.set_health(service, Health(ServiceState.HEALTHY))
        self.suspects: list[str] = []
        self.forwarder = Forwarder(
            self.fleet,
            self,
            self.limits,
            lambda s: self.suspects.append(s.name),
            Account(self.metrics, None),
        )
        self.max_queue = 0
        self.exchange = FakeExchange()
        self.call = call_of(self.exchange)
        self.call.meter = self.meter = Charging()

    def limits(self) -> LimitsSettings:
        return LimitsSettings(max_queue=self.max_queue)

    def pool(self, url: str) -> Pool:
        return self.pools[url.removeprefix("http://")]

    async def forward(self) -> None:
        """Forward the call and wait for its end; cancelled, its client has left."""
        self.forwarder.forward(self.exchange, self.call, self._refuse)
        try:
            await asyncio.wait_for(asyncio.shield(self.exchange.ended), 5)
        except asyncio.CancelledError:
            self.exchange.client_gone()
            raise

    def _refuse(self, exchange, error, _organization) -> None:
        exchange.refused(error)

    @property
    def tried(self) -> list[str]:
        """Engines that were sent the call, or refused a connection, in order."""
        self.fleet._metrics.fold()
        return [s.name for s in self.fleet.services for _ in range(s.cells.request_count)]

    def assert_nothing_is_held(self) -> None:
        assert [service.in_flight for service in self.fleet.services] == [0] * len(self.pools)
        assert self.forwarder.running == set()
        assert self.exchange.flow is None
        assert self.exchange.journey is None
        assert len(self.meter.charged) == 1


async def running(house: House) -> tuple[asyncio.Task[None], Relay]:
    """The call under way at its first engine."""
    task = asyncio.create_task(house.forward())
    while not any(pool.opened for pool in house.pools.values()):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    (relay,) = house.forwarder.running
    return task, relay
