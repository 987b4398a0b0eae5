"""The policies. A policy sees candidates that are all eligible, and returns one of them.

`turn` counts the choices made so far for the model: it is what rotates, so that a policy keeps no
state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What a policy may know of a service."""

    @property
    def in_flight(self) -> int:
        """Requests that it holds now."""

    @property
    def weight(self) -> int:
        """Its share of the load, relative to the others; at least 1."""


C = TypeVar("C", bound=Candidate)
Policy = Callable[[Sequence[C], int], C]


def round_robin(candidates: Sequence[C], turn: int) -> C:
    """Each in its turn, as many turns in a row as its weight says."""
    place = turn % sum(candidate.weight for candidate in candidates)
    for candidate in candidates:
        place -= candidate.weight
        if place < 0:
            return candidate
    raise AssertionError("weights are positive")


def least_load(candidates: Sequence[C], turn: int) -> C:
    """The one with the fewest requests in flight for its weight; equals take turns."""
    best = candidates[turn % len(candidates)]
    for candidate in candidates:
        if candidate.in_flight * best.weight < best.in_flight * candidate.weight:
            best = candidate
    return best


POLICIES: Mapping[str, Policy] = MappingProxyType(  # type: ignore[type-arg]
    {"round_robin": round_robin, "least_load": least_load}
)
"""Name in `routing.policy` -> the function."""
