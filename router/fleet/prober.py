"""Active health checks: one small loop a service, all concurrent, none generating a token."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic

import aiohttp

from router.config.settings import HealthSettings
from router.fleet.fleet import Fleet
from router.fleet.health import (
    Absence,
    Observation,
    least_delay,
    next_absence,
    next_delay,
    next_health,
)
from router.fleet.load import EngineLoad, parse_load
from router.fleet.model_list import NO_SUCH_PAGE, judge
from router.fleet.service import Health, Service
from router.log import get_logger
from router.model import ServiceState

INSTANCE_HEADER = "x-router-instance"
"""What `/health` of a router tells: who it is, for as long as it runs."""

_MAX_LIST_BYTES = 4 * 1024 * 1024
_JITTER = 0.1
_LOOP = "its url leads back to this router itself; write the address of an engine"

_log = get_logger("router.fleet")


class Prober:
    """Probes every service of a fleet, every `interval_s` with jitter, and tells the fleet.

    Args:
        fleet: holds the services, and is told.
        settings: asked for anew at each probe, so a reload counts from the next one on.
        instance: what this router calls itself on `/health`, to know itself by.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: Callable[[], HealthSettings],
        *,
        instance: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._instance = instance
        self._clock = clock
        self._tasks: dict[Service, asyncio.Task[None]] = {}
        self._hurry: dict[Service, asyncio.Event] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begin to probe, and go on with whatever the fleet will hold."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), trust_env=False
        )
        self._fleet.on_change(self._reconcile)
        self._reconcile()

    async def stop(self) -> None:
        """End every loop and close the connections."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def suspect(self, service: Service) -> None:
        """Probe `service` as soon as may be: a request to it has just failed."""
        hurry = self._hurry.get(service)
        if hurry is not None:
            hurry.set()

    def _reconcile(self) -> None:
        if self._session is None:
            return
        wanted = {service for service in self._fleet.services if not service.removed}
        for service in self._tasks.keys() - wanted:
            self._tasks.pop(service).cancel()
            del self._hurry[service]
        for service in wanted - self._tasks.keys():
            self._hurry[service] = asyncio.Event()
            self._tasks[service] = asyncio.create_task(
                self._watch(service, self._session), name=f"probe {service.name}"
            )

    async def _watch(self, service: Service, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._probe(service, session))
            loops.create_task(self._read_load(service, session))

    async def _probe(self, service: Service, session: aiohttp.ClientSession) -> None:
        hurry = self._hurry[service]
        absence = Absence()
        while True:
            settings = self._settings()
            hurry.clear()
            seen = await probe(
                session, service, timeout_s=settings.timeout_s, instance=self._instance
            )
            health = next_health(
                service.health,
                seen,
                unhealthy_after=settings.unhealthy_after,
                healthy_after=settings.healthy_after,
            )
            self._fleet.set_health(service, health, seen.cards)
            absence = self._note_absence(service, absence, seen)
            await _pause(hurry, health, settings)

    def _note_absence(self, service: Service, was: Absence, seen: Observation) -> Absence:
        """Say once, each time it is away, that a service has not been there for long."""
        absence = next_absence(was, seen, self._clock())
        if absence.is_long and not was.is_long:
            _log.warning(
                "service_absent",
                service=service.name,
                url=service.spec.url,
                error=seen.error,
                remedy="an engine that loads is no fault; else look at its url and at its own log",
            )
        return absence

    async def _read_load(self, service: Service, session: aiohttp.ClientSession) -> None:
        while True:
            settings = self._settings()
            if service.health.state is ServiceState.HEALTHY:
                await self._read_load_once(service, session, settings)
            await asyncio.sleep(_jittered(settings.metrics_interval_s))

    async def _read_load_once(
        self, service: Service, session: aiohttp.ClientSession, settings: HealthSettings
    ) -> None:
        """Tell the fleet what is read; where no answer comes, what was read before goes on."""
        try:
            load = await read_load(session, service, timeout_s=settings.timeout_s)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return
        self._fleet.set_load(service, load, settings.hung_after_s)


def _jittered(delay_s: float) -> float:
    return delay_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311


async def _pause(hurry: asyncio.Event, health: Health, settings: HealthSettings) -> None:
    """Wait until the next probe is due; a hurry makes it sooner, but not too near to the last."""
    interval_s = settings.interval_s
    delay_s = next_delay(health, interval_s=interval_s, unhealthy_after=settings.unhealthy_after)
    least_s = least_delay(interval_s)
    await asyncio.sleep(_jittered(least_s))
    try:
        async with asyncio.timeout(_jittered(delay_s - least_s)):
            await hurry.wait()
    except TimeoutError:
        pass


async def probe(
    session: aiohttp.ClientSession,
    service: Service,
    *,
    timeout_s: float,
    instance: str | None = None,
) -> Observation:
    """Ask one engine how it is: its health path, then its model list. Generates nothing.

    `instance` is what this router calls itself; None: it does not ask itself.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    began = monotonic()
    try:
        return await _ask_health(session, service, timeout, instance) or await _learn(
            session, service, timeout
        )
    except aiohttp.ClientSSLError as error:
        why = fault_of(error)
        return Observation(ok=False, misconfigured=True, error=f"TLS fails: {why}")
    except aiohttp.ClientConnectorError as error:
        why = fault_of(error)
        return Observation(ok=False, starting=True, error=f"cannot connect: {why}")
    except TimeoutError:
        late = f"no answer to a probe within {timeout_s:g} s"
        return Observation(ok=False, busy=service.heard > began, error=late)
    except (aiohttp.ClientError, OSError) as error:
        return Observation(ok=False, error=f"probe failed: {fault_of(error)}")


def fault_of(error: Exception) -> str:
    """What went wrong, without what the client's own message on a connection says of TLS."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error) or type(error).__name__
    return str(error) or type(error).__name__


async def read_load(
    session: aiohttp.ClientSession, service: Service, *, timeout_s: float
) -> EngineLoad | None:
    """Read an engine's `/metrics`; None where its answer has no series of vLLM.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError, ValueError: it gave no answer that tells.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with _get(session, service, "/metrics", timeout) as answer:
        if answer.status in NO_SUCH_PAGE:
            return None
        if answer.status != 200:
            raise ValueError(f"/metrics answered {answer.status}")
        return parse_load(await _bounded(answer.content) or b"")


def _get(
    session: aiohttp.ClientSession, service: Service, path: str, timeout: aiohttp.ClientTimeout
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    key = service.spec.api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = service.spec.url + path
    return session.get(url, headers=headers, timeout=timeout, allow_redirects=False)


async def _ask_health(
    session: aiohttp.ClientSession,
    service: Service,
    timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is the client's own
    instance: str | None,
) -> Observation | None:
    """Read the health path; None: it is well."""
    path = service.spec.health_path
    async with _get(session, service, path, timeout) as answer:
        if instance is not None and answer.headers.get(INSTANCE_HEADER) == instance:
            return Observation(ok=False, misconfigured=True, error=_LOOP)
        if answer.status == 200:
            return None
        error = f"{path} answered {answer.status}"
        return Observation(ok=False, starting=answer.status == 503, error=error)


async def _learn(
    session: aiohttp.ClientSession,
    service: Service,
    timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is the client's own
) -> Observation:
    """Read `/v1/models`: needed where no models are configured, else for the context length."""
    async with _get(session, service, "/v1/models", timeout) as answer:
        status = answer.status
        body = await _bounded(answer.content) if status == 200 else b""
    listing = judge(service.spec, status, body)
    return Observation(
        ok=listing.fault is None,
        error=listing.fault,
        mismatch=listing.mismatch,
        cards=listing.cards,
    )


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole answer; None where it is over the bound."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MAX_LIST_BYTES:
            return None
    return bytes(body)
