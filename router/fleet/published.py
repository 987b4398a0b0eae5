"""What the sources have published, and which services there should be by it."""

from __future__ import annotations

from collections.abc import Iterable

from router.model import ServiceSpec

_SOURCE_RANK = {"yaml": 0, "files": 1, "docker": 2}


class Published:
    """The specs of every source."""

    def __init__(self) -> None:
        self._sources: dict[str, dict[str, ServiceSpec]] = {}

    def replace(self, source: str, specs: Iterable[ServiceSpec]) -> None:
        """Put `specs` in the place of everything that `source` has published so far."""
        self._sources[source] = {spec.name: spec for spec in specs}

    def wanted(self) -> dict[str, ServiceSpec]:
        """By name; where two sources use one, `yaml` wins, then `files`."""
        by_rank = sorted(self._sources, key=lambda source: _SOURCE_RANK.get(source, 1))
        wanted: dict[str, ServiceSpec] = {}
        for source in by_rank:
            for name, spec in self._sources[source].items():
                wanted.setdefault(name, spec)
        return wanted


def replaces(old: ServiceSpec, new: ServiceSpec | None) -> bool:
    """Whether a service ends where `new` is wanted, None: nothing; else it takes `new` over."""
    if new is None:
        return True
    return (old.url, old.api_key, old.models) != (new.url, new.api_key, new.models)
