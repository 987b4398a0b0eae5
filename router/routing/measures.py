"""What each policy goes by, as numbers for people: it chooses one of those with the lowest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from router.routing.policies import Candidate

Measure = Callable[[Sequence[Candidate], int], list[float]]
"""(candidates, turn) -> a number for each of them."""


def turns_until(candidates: Sequence[Candidate], turn: int) -> list[float]:
    """Choices until it is its turn; 0: now."""
    total = sum(candidate.weight for candidate in candidates)
    place = turn % total if total else 0
    starts_at = 0
    found: list[float] = []
    for candidate in candidates:
        is_its_turn = starts_at <= place < starts_at + candidate.weight
        found.append(0.0 if is_its_turn else float((starts_at - place) % total))
        starts_at += candidate.weight
    return found


def load_by_weight(candidates: Sequence[Candidate], turn: int) -> list[float]:  # noqa: ARG001
    """Requests in flight for its weight."""
    return [candidate.in_flight / candidate.weight for candidate in candidates]


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"round_robin": turns_until, "least_load": load_by_weight}
)
"""Name in `routing.policy` -> its measure."""
