"""What a source of services tells of itself, and how it hands its services over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.model import ServiceSpec

DOCKER = "docker"
FILES = "files"


class Publish(Protocol):
    """Takes over all services of a source, in place of those it published before.

    `dead` are names of services that are gone because nothing answers there any more; one that is
    gone and not named ends what it does.
    """

    def __call__(
        self, source: str, specs: Sequence[ServiceSpec], /, *, dead: Collection[str] = ()
    ) -> None:
        """Take them over at once."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A source of services as it is now.

    Attributes:
        source: `docker` or `files`.
        healthy: it is read; False: what it told last still counts, and may be out of date.
        generation: how often its services changed.
        services: it publishes now.
        error: why it is not healthy, for people; None when it is.
    """

    source: str
    healthy: bool
    generation: int
    services: int
    error: str | None = None
