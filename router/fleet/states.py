"""The states of services as people see them: each change is logged, counted, timed and told."""

from __future__ import annotations

from collections.abc import Callable

from router.fleet.service import Service
from router.log import get_logger
from router.model import ServiceState

_log = get_logger("router.fleet")
_FAULTY = frozenset({ServiceState.UNHEALTHY, ServiceState.EJECTED})
_LEVEL = {ServiceState.UNHEALTHY: 30, ServiceState.EJECTED: 30}
StateListener = Callable[[Service, ServiceState, float], None]
"""Is given the service, the state it was in, and for how many seconds."""


class States:
    """Shows the states of services, and tells who listens.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._listeners: list[StateListener] = []

    def on_change(self, listener: StateListener) -> None:
        """Have `listener` called when what is shown of a service has changed."""
        self._listeners.append(listener)

    def show(self, service: Service, now: float) -> None:
        """Show the state that a service is in; `now` in monotonic seconds."""
        state = service.state(now)
        if state is service.shown:
            return
        if service.shown is ServiceState.HEALTHY and state in _FAULTY:
            service.cells.leave.observe(now - service.fault_began(now))
        since = self._clock()
        was, was_for_s = service.shown, since - service.since
        service.cells.note_state(str(was), str(state), was_for_s)
        _log.log(
            _LEVEL.get(state, 20),
            "service_state",
            service=service.name,
            state=str(state),
            was=str(was),
            was_for_s=round(was_for_s, 3),
            error=None if state is ServiceState.HEALTHY else service.last_error,
        )
        service.shown, service.since = state, since
        for listener in self._listeners:
            listener(service, was, was_for_s)
