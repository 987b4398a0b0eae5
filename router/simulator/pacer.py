"""Real time for an engine: one timer, whatever the number of streams."""

from __future__ import annotations

import asyncio

from router.simulator.engine import Engine, StepPlan

#: How far a late step may pull the next ones forward, so that the mean rate stays true.
_MAX_LAG_S = 0.1


class Pacer:
    """Runs an engine's steps on the event loop, each at its simulated end."""

    def __init__(self, engine: Engine, time_scale: float) -> None:
        self._engine = engine
        self._time_scale = time_scale
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """There may be work: start stepping unless a step is under way."""
        if self._timer is None:
            self._begin_step(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Step no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_step(self, start: float) -> None:
        plan = self._engine.plan()
        if plan is None:
            self._timer = None
            return
        due = start + plan.duration_s / self._time_scale
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(due, self._end_step, plan, due)

    def _end_step(self, plan: StepPlan, due: float) -> None:
        self._engine.commit(plan)
        now = asyncio.get_running_loop().time()
        self._begin_step(max(due, now - _MAX_LAG_S))
