"""Why no slot can be had, and when to ask again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from router.errors import ModelLoading, NoHealthyBackend
from router.fleet.catalog import (
    LOADING_RETRY_AFTER_S,
    UNHEALTHY_RETRY_AFTER_S,
    no_healthy_service,
)
from router.fleet.service import Service
from router.model import ServiceState

_LONGEST_RETRY_AFTER_S = 60.0
_MINUTE_S = 60.0


def nobody(
    model: str, members: Sequence[Service], exclude: Collection[Service]
) -> NoHealthyBackend | ModelLoading:
    """The error where no service of `model` is usable, but for those in `exclude`."""
    left = [service for service in members if service not in exclude]
    if any(service.asleep for service in left):
        return NoHealthyBackend(
            f"What serves `{model}` is asleep.", retry_after_s=UNHEALTHY_RETRY_AFTER_S
        )
    if any(service.health.state is ServiceState.LOADING for service in left):
        return ModelLoading(
            f"What serves `{model}` is still starting.", retry_after_s=LOADING_RETRY_AFTER_S
        )
    return no_healthy_service(model)


def retry_after(members: Sequence[Service], waiting: int, now: float) -> float:
    """Seconds until a slot is likely, from the rate at which the services ended requests lately."""
    ended = sum(service.cells.recent.ended(now) for service in members)
    if not ended:
        return 1.0
    return min(_LONGEST_RETRY_AFTER_S, (waiting + 1) * _MINUTE_S / ended)
