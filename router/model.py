"""The small frozen values that the floors hand to each other."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import msgspec


class ServiceState(enum.StrEnum):
    """What the router knows of a service; a promise of `/services`."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    LOADING = "loading"
    EJECTED = "ejected"
    DRAINING = "draining"
    SLEEPING = "sleeping"


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One engine that somebody wants routed to: what a source (a file, Docker) publishes.

    Attributes:
        name: unique in the fleet.
        url: base URL of the engine, `http://host:port`, without a trailing slash.
        source: who published it: `yaml`, `docker`, `files`.
        models: names it serves; None: asked of the engine.
        api_key: the engine's own key, never a client's.
        group: services that are interchangeable; defaults to the name.
        gpu: index or identifier for people; None when unknown.
        weight: share of the load relative to others of the model.
        max_concurrency: requests it may hold at once; None: no limit.
        health_path: path of the probe.
    """

    name: str
    url: str
    source: str
    models: tuple[str, ...] | None = None
    api_key: str | None = field(default=None, repr=False)
    group: str = ""
    gpu: str | None = None
    weight: int = 1
    max_concurrency: int | None = None
    health_path: str = "/health"

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as an engine lists it on `/v1/models` (vLLM 0.32 fields).

    Attributes:
        id: the served name.
        max_model_len: context length in tokens; None when the engine does not say.
        row: the engine's whole row, passed on to clients.
    """

    id: str
    max_model_len: int | None
    row: dict[str, Any] = field(hash=False)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one exchange, as the engine reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


NO_USAGE = Usage()
