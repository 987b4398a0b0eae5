"""A change of a service's state, in a sentence for people."""

from __future__ import annotations

from router.events import Severity
from router.model import ServiceState

_SENTENCES = {
    ServiceState.HEALTHY: "is healthy again",
    ServiceState.UNHEALTHY: "is down",
    ServiceState.LOADING: "is loading",
    ServiceState.EJECTED: "is ejected: requests to it fail",
    ServiceState.DRAINING: "is draining",
    ServiceState.SLEEPING: "sleeps: its memory is off the GPU",
}
_SEVERITIES = {
    ServiceState.UNHEALTHY: Severity.ERROR,
    ServiceState.EJECTED: Severity.WARNING,
    ServiceState.SLEEPING: Severity.WARNING,
}


def state_told(
    state: ServiceState, was: ServiceState, was_for_s: float, error: str | None
) -> tuple[str, Severity]:
    """What to tell of a service that was in state `was` for some seconds, and how much it matters.

    `error` is what was found wrong with it last; None: nothing.
    """
    if state is ServiceState.HEALTHY:
        start = was is ServiceState.LOADING
        text = "is up" if start else _SENTENCES[state]
        return f"{text}, after {duration(was_for_s)} {_WAS[was]}", Severity.INFO
    text = _SENTENCES[state]
    more = f": {error}" if error and state in _SEVERITIES else ""
    if state is ServiceState.EJECTED and more:
        text = "is ejected"
    return f"{text}{more}", _SEVERITIES.get(state, Severity.INFO)


_WAS = {
    ServiceState.HEALTHY: "healthy",
    ServiceState.UNHEALTHY: "down",
    ServiceState.LOADING: "of loading",
    ServiceState.EJECTED: "ejected",
    ServiceState.DRAINING: "draining",
    ServiceState.SLEEPING: "asleep",
}


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `12 s`, `5 min`, `3.2 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
