"""`POST /explain`: what would happen to an inference request. Nothing is sent or reserved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from router.api.answer import Answer, Asking, json_answer
from router.errors import RouterError
from router.fleet.fleet import Fleet
from router.fleet.service import Service
from router.model import ServiceState
from router.openai.cost import Cost
from router.routing import POLICIES
from router.routing.measures import MEASURES

_DEFAULT_PATH = "/v1/chat/completions"

Weigh = Callable[[str, Asking], tuple[str, str, Cost]]
"""(path, request) -> (full name of the model, path as the engine knows it, most it may cost)."""


class ExplainPages:
    """The page, over the fleet.

    Args:
        fleet: whose services are candidates.
        policy: its name in `routing.policy`, as it is now.
        weigh: reads a request as the pipeline would.
    """

    def __init__(self, fleet: Fleet, policy: Callable[[], str], weigh: Weigh) -> None:
        self._fleet = fleet
        self._policy = policy
        self._weigh = weigh

    def explain(self, asking: Asking) -> Answer:
        """`POST /explain?path=/v1/chat/completions`, the body as it would be sent there.

        Raises:
            RouterError: what the request itself would be refused with.
        """
        path = asking.parameter("path")
        model, upstream, cost = self._weigh(_DEFAULT_PATH if path is None else path, asking)
        try:
            able, turn = self._fleet.eligible(model)
        except RouterError:  # nobody could take it now; each candidate says why
            able, turn = [], 0
        members = [each for each in self._fleet.services if model in each.models]
        page = explanation(members, able, turn, policy=self._policy(), now=monotonic())
        reservation = {
            "prompt_tokens": cost.prompt_tokens,
            "completion_tokens": cost.completion_tokens,
        }
        return json_answer({"model": model, "path": upstream, **page, "reservation": reservation})


def explanation(
    members: Sequence[Service], able: Sequence[Service], turn: int, *, policy: str, now: float
) -> dict[str, Any]:
    """Candidates and choice.

    Args:
        members: services of the model, whatever their state.
        able: those of them that may take a call now.
        turn: of the policy.
        policy: its name.
        now: monotonic seconds.
    """
    scores = dict(zip(able, MEASURES[policy](able, turn), strict=True))
    return {
        "candidates": [
            {
                "service": each.name,
                "eligible": each in scores,
                "reason": None if each in scores else why_not(each, now),
                "score": scores.get(each),
            }
            for each in members
        ],
        "choice": POLICIES[policy](able, turn).name if able else None,
    }


def why_not(service: Service, now: float) -> str:
    """Why a service takes no call now: the first word is its state, or `full` or `waiting`."""
    if service.hung and not (service.removed or service.asleep):
        return service.last_error or "hung: requests run and no token moves"
    state = service.state(now)
    if state is not ServiceState.HEALTHY:
        words = str(state)
        if state is ServiceState.EJECTED:
            words += f" for another {service.breaker.until - now:.0f} s"
        return f"{words}: {service.last_error}" if service.last_error else words
    if service.is_full:
        return f"full: {service.in_flight} of {service.slots} requests"
    if not service.breaker.admits(now):
        return "ejected: one request is on trial"
    return "waiting: requests that came before have the next free slot"
