"""What a probe means: pure decisions, apart from the probing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from router.fleet.service import Health
from router.model import ModelCard, ServiceState

_LOADING_INTERVAL_S = 2.0
_DOUBT_INTERVAL_S = 1.0
_ABSENT_TOLD_S = 30.0
_MOST_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Observation:
    """What one probe saw.

    Attributes:
        ok: the engine answered as a healthy one does.
        starting: it is not there yet: connection refused, name not known, or 503.
        busy: it was late, and answers came from it meanwhile: not dead.
        misconfigured: waiting will not help: somebody has to change something.
        error: what was wrong, for people; None when ok.
        mismatch: how its models differ from those configured; None when they do not.
        cards: its model list; None when it was not read.
    """

    ok: bool
    starting: bool = False
    busy: bool = False
    misconfigured: bool = False
    error: str | None = None
    mismatch: str | None = None
    cards: tuple[ModelCard, ...] | None = None


def next_health(
    health: Health, seen: Observation, *, unhealthy_after: int, healthy_after: int
) -> Health:
    """The state after a probe.

    A service that has never answered and cannot be reached is `loading`: engines refuse
    connections until they are ready (vLLM 0.32.0). One that has answered before is `unhealthy`
    after `unhealthy_after` failures in a row, and `healthy` again after `healthy_after` successes.
    One that cannot become well by itself, as it is configured, is `unhealthy` at once where it was
    never healthy; later that too takes `unhealthy_after` failures.
    """
    if seen.ok:
        successes = health.successes + 1
        well = not health.ever_healthy or successes >= healthy_after
        state = ServiceState.HEALTHY if well else health.state
        ever_healthy = health.ever_healthy or well
        return Health(state, 0, successes, ever_healthy, None, seen.mismatch)
    if seen.busy:
        return replace(health, last_error=seen.error)
    if seen.starting and not health.ever_healthy:
        return replace(health, state=ServiceState.LOADING, successes=0, last_error=seen.error)
    failures = health.failures + 1
    is_out = failures >= unhealthy_after or (seen.misconfigured and not health.ever_healthy)
    state = ServiceState.UNHEALTHY if is_out else health.state
    return replace(health, state=state, failures=failures, successes=0, last_error=seen.error)


def next_delay(health: Health, *, interval_s: float, unhealthy_after: int) -> float:
    """Seconds until the next probe, before jitter: sooner while the state is not settled.

    After one that fell it is looked soon, then ever later: a short fault costs seconds, and an
    engine that is dead for long is not asked all the time.
    """
    if health.state is ServiceState.LOADING:
        return min(interval_s, _LOADING_INTERVAL_S)
    if health.state is ServiceState.UNHEALTHY:
        doublings = min(max(0, health.failures - unhealthy_after), _MOST_DOUBLINGS)
        return min(interval_s, _DOUBT_INTERVAL_S * 2.0**doublings)
    return least_delay(interval_s) if health.failures else interval_s


def least_delay(interval_s: float) -> float:
    """Seconds, before jitter, that a probe keeps from the one before, however it is hurried.

    Without it a burst of failed requests makes as many failed probes within milliseconds, and
    `unhealthy_after` of them would mean nothing.
    """
    return min(interval_s, _DOUBT_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class Absence:
    """How long a service has been starting, or has not been there at all.

    Attributes:
        since: first of such probes in a row, monotonic seconds; None: the last one was no such.
        is_long: so long that somebody should know.
    """

    since: float | None = None
    is_long: bool = False


def next_absence(absence: Absence, seen: Observation, now: float) -> Absence:
    """The absence after a probe at `now`."""
    if not seen.starting:
        return Absence()
    since = now if absence.since is None else absence.since
    return Absence(since, now - since >= _ABSENT_TOLD_S)
