"""The composition root: builds every owner, starts and stops them in order, applies a reload."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from router import __version__
from router.access.door import Door
from router.api.access import StatusGuard
from router.api.docs import DocsPages
from router.api.explain import ExplainPages
from router.api.gauges import (
    connection_gauges,
    discovery_gauges,
    fleet_gauges,
    ledger_gauges,
    process_gauges,
    reload_gauges,
    storage_gauges,
)
from router.api.models import ModelPages
from router.api.pages import Condition, StatusPages
from router.api.usage import UsagePages
from router.config import Settings, service_specs
from router.config.settings import ServerSettings
from router.config.snapshot import snapshot_path
from router.config.watching import ConfigWatcher
from router.dashboard.dashboard import Dashboard
from router.dashboard.picture import Sources
from router.discovery import Discovery
from router.errors import Draining, RouterError
from router.events import EventLog, Severity
from router.exposition import Family
from router.fleet.fleet import Fleet
from router.fleet.prober import Prober
from router.fleet.service import Service
from router.fleet.words import state_told
from router.limits.rate import RateLimiter
from router.log import get_logger
from router.metrics import Metrics, Sample
from router.model import ServiceState
from router.proxy.access_log import AccessLog
from router.proxy.account import Account
from router.proxy.downstream import Downstream
from router.proxy.forward import Forwarder
from router.proxy.meter import Metering
from router.proxy.pipeline import Pipeline
from router.proxy.quota_notices import QuotaNotices
from router.proxy.scales import Scales
from router.proxy.sweep import Sweeper
from router.proxy.upstream import Upstreams
from router.reload import Reloader
from router.routes import Dispatch, entries
from router.routing import POLICIES
from router.state import State

_log = get_logger("router.daemon")
_BACKLOG = 2048
_LAST_WORDS_S = 0.5
_GC_THRESHOLDS = (50_000, 5, 5)


class Spans(Protocol):
    """Who sends spans, see `router.telemetry`."""

    def take(self, service: str, samples: Sequence[Sample]) -> None:
        """Tell of the requests among these attempts."""

    def close(self) -> None:
        """Send what waits, and end. Blocks."""


class Daemon:
    """The router, from its settings to its end.

    Args:
        settings: as loaded.
        read: loads them again, for a reload, in a thread; raises ConfigurationError.
        state_path: of the state database; None keeps usage in memory and knows no stored keys.
        watcher: tells of changes of the file; None: only SIGHUP reloads it.
        access_log: told of every request; None: there is none.
        spans: told of every request too.
        pinned: keys that the command line decides, whatever the file says.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        state_path: Path | None = None,
        *,
        watcher: ConfigWatcher | None = None,
        access_log: AccessLog | None = None,
        spans: Spans | None = None,
        pinned: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._access_log = access_log
        self._spans = spans
        self._phase = "starting"
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._failed = False
        self._tasks: list[asyncio.Task[None]] = []
        self.events = EventLog()
        self.reloader = Reloader(
            settings,
            read,
            self._take_over,
            snapshot=snapshot_path(state_path) if state_path is not None else None,
            pinned=pinned,
            events=self.events,
        )
        self.state = State(settings, state_path)
        self.metrics = Metrics(__version__)
        account = Account(self.metrics, access_log)
        self.fleet = Fleet(
            self.metrics,
            policy=POLICIES[settings.routing.policy],
            aliases=settings.aliases,
            routed=[route.model for route in settings.routes],
            ejection=settings.ejection,
        )
        self._instance = secrets.token_hex(16)
        self.upstreams = Upstreams(asyncio.get_running_loop(), self._instance)
        self.discovery = Discovery(settings, self.fleet.publish, self.events)
        self.prober = Prober(self.fleet, lambda: self._settings.health, instance=self._instance)
        self.forwarder = Forwarder(
            self.fleet,
            self.upstreams,
            lambda: self._settings.limits,
            self.prober.suspect,
            account,
        )
        self._limiter = RateLimiter(*_rate(settings))
        self.dashboard = self._dashboard()
        self.dispatch = self._dispatch()
        self.downstream = Downstream(
            self.dispatch,
            self._server_settings,
            asyncio.get_running_loop(),
            account.refused,
            account.left,
        )
        self._sweeper = Sweeper(
            self._server_settings,
            downstream=self.downstream,
            forwarder=self.forwarder,
            upstreams=self.upstreams,
            fleet=self.fleet,
            metrics=self.metrics,
        )
        self._introduce()

    def _dispatch(self) -> Dispatch:
        door = Door(self.state.keyring, self._limiter, time.time)
        guard = StatusGuard(self._server_settings)
        usage = UsagePages(self.state.ledger)
        metering = Metering(self.state.ledger, self.fleet, self.upstreams, time.time)
        scales = Scales(lambda: self.fleet.catalog, metering, lambda: entries(self._settings))
        pipeline = Pipeline(
            door,
            self.fleet,
            metering,
            self.forwarder,
            notices=QuotaNotices(self.events),
            closed=self._closed,
            limits=self._server_settings,
        )
        status = StatusPages(
            self.fleet,
            self.metrics,
            self._condition,
            usage.organizations,
            guard.is_admin,
            instance=self._instance,
        )
        return Dispatch(
            pipeline=pipeline,
            door=door,
            guard=guard,
            status=status,
            models=ModelPages(self.fleet),
            usage=usage,
            dashboard=self.dashboard,
            docs=DocsPages(__version__),
            explain=ExplainPages(self.fleet, lambda: self._settings.routing.policy, scales.weigh),
            settings=self._settings,
            instance=self._instance,
        )

    def _dashboard(self) -> Dashboard:
        sources = Sources(
            fleet=self.fleet,
            ledger=self.state.ledger,
            condition=self._condition,
            in_flight=lambda: self.downstream.active,
            version=__version__,
        )
        return Dashboard(sources, self.events, self._server_settings, asyncio.get_running_loop())

    def _introduce(self) -> None:
        """Have those who measure and those who keep services tell the others."""
        for listener in (self._access_log, self._spans):
            if listener is not None:
                self.metrics.on_samples(listener.take)
        self.metrics.add_source(self._gauges)
        self.fleet.on_change(self._fleet_changed)
        self.fleet.on_down(self.forwarder.service_down)
        self.fleet.on_state(self._service_changed)

    # -- a life ------------------------------------------------------------------------------

    async def run(self, *, on_ready: Callable[[str], None] | None = None) -> int:
        """Serve until told to stop. `on_ready` gets the URL once it listens.

        Returns:
            The exit status: 1 where it was told to hurry, a task failed or usage could not be
            written, else 0.
        """
        # From the first thing that must be undone to the last that was: a signal in start-up, or
        # while usage is written at the end, would kill the process.
        with self._signals():
            async with self.serving() as url:
                if on_ready is not None:
                    on_ready(url)
                await self._stop.wait()
                await self._drain()
        return 1 if self._stop_now.is_set() or self._failed else 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listen, probe and sweep while the context lasts; gives the base URL."""
        server_settings = self._settings.server
        await self.state.start(self._task_ended)
        self.fleet.publish("yaml", service_specs(self._settings))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self.downstream,
            server_settings.host,
            server_settings.port,
            backlog=_BACKLOG,
        )
        await self.prober.start()
        self._begin(self._sweeper.run(), "sweep")
        self._begin(self.reloader.run(), "reload")
        self._begin(self.discovery.run(), "discovery")
        self._begin(self.dashboard.run(), "dashboard")
        if self._watcher is not None:
            self._begin(self._watcher.run(self.reloader.request), "watch")
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        host, port = server.sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("listening", url=url, version=__version__)
        self.events.add("daemon", "router", f"listens on {url}")
        self._phase = "running"
        try:
            yield url
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.prober.stop()
            self.dashboard.close()
            self.downstream.close()
            self.upstreams.close()
            if not await self.state.close():
                self._failed = True
            self.metrics.fold()
            if self._spans is not None:
                await asyncio.to_thread(self._spans.close)
            _log.info("stopped")

    def stop(self) -> None:
        """Begin to drain; a second call ends at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def _drain(self) -> None:
        """Let running requests end, unless told to hurry."""
        self._phase = "draining"
        timeout_s = self._settings.server.drain_timeout_s
        _log.info("draining", in_flight=self.downstream.active, timeout_s=timeout_s)
        self.events.add("daemon", "router", "drains: takes nothing new", Severity.WARNING)
        waits = [
            asyncio.create_task(self.downstream.drained()),
            asyncio.create_task(self._stop_now.wait()),
        ]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.downstream.active:
            _log.warning("drain_cut_short", in_flight=self.downstream.active)
        self.forwarder.shut_down()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.downstream.drained()

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something for as long as the daemon lives."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Without any of its tasks the router would only seem to work: drain, and say so."""
        if not task.cancelled():
            _log.critical("task_failed", task=task.get_name(), exc_info=task.exception())
            self._failed = True
            self._stop.set()  # and not `stop`: two that fail are no order to hurry

    # -- a reload -----------------------------------------------------------------------------

    def _take_over(self, settings: Settings) -> None:
        """Put new settings into effect; what runs ends on the old ones."""
        self._settings = settings
        self.state.configure(settings)
        self._limiter.configure(*_rate(settings))
        self.fleet.configure(
            policy=POLICIES[settings.routing.policy],
            aliases=settings.aliases,
            routed=[route.model for route in settings.routes],
            ejection=settings.ejection,
        )
        self.fleet.publish("yaml", service_specs(settings))
        self.discovery.configure(settings)
        self.dispatch.configure(settings)

    # -- what the owners ask of each other ------------------------------------------------------

    def _server_settings(self) -> ServerSettings:
        return self._settings.server

    def _closed(self) -> RouterError | None:
        if self._phase != "draining":
            return None
        wait_s = self._settings.server.drain_timeout_s
        return Draining("The router is shutting down.", retry_after_s=wait_s)

    def _condition(self) -> Condition:
        return Condition(self._phase, self.reloader.generation, self.reloader.last_error)

    def _fleet_changed(self) -> None:
        self.upstreams.retain(service.spec.url for service in self.fleet.services)

    def _service_changed(self, service: Service, was: ServiceState, was_for_s: float) -> None:
        text, severity = state_told(service.shown, was, was_for_s, service.last_error)
        self.events.add("service", service.name, text, severity)

    def _gauges(self) -> Iterator[Family]:
        yield from fleet_gauges(self.fleet)
        yield from connection_gauges(self.downstream.count, *self.upstreams.counts())
        yield from process_gauges(
            self.downstream.body_bytes,
            len(asyncio.all_tasks()),
            self._access_log.dropped if self._access_log is not None else 0,
        )
        yield from ledger_gauges(self.state.ledger)
        reloader = self.reloader
        yield from reload_gauges(reloader.generation, reloader.last_error, reloader.last_reload)
        yield from discovery_gauges(self.discovery.statuses())
        if self.state.database is not None:
            yield from storage_gauges(self.state.database.status())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self.reloader.request,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)


def _rate(settings: Settings) -> tuple[float, int]:
    per_ip = settings.limits.per_ip
    return per_ip.requests_per_second, per_ip.burst
