"""The owner of all cells: keeps them, brings them up to date, and has them shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from router.exposition import Family, rendered
from router.metrics.cells import (
    CHARGED,
    LAST,
    ORGANIZATION,
    OrganizationCells,
    Sample,
    ServiceCells,
)
from router.metrics.families import (
    build_family,
    counter_families,
    histogram_families,
    lag_family,
    organization_families,
    rejection_family,
    request_families,
)
from router.metrics.histogram import FINE_SECONDS, Histogram

_ORGANIZATION = itemgetter(ORGANIZATION)
_MAX_ORGANIZATIONS = 200
_MAX_GONE_SERVICES = 256
OTHERS = "other"
"""Stands for every organization past the first 200."""


class Metrics:
    """Owner of all cells, by service and by organization."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._services: dict[str, ServiceCells] = {}
        self._gone: dict[str, None] = {}
        self._organizations: dict[str, OrganizationCells] = {}
        self._sample_listeners: list[Callable[[str, list[Sample]], None]] = []
        self.loop_lag = Histogram(FINE_SECONDS)
        self.rejections: defaultdict[str, int] = defaultdict(int)
        self._sources: list[Callable[[], Iterable[Family]]] = []
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def service(self, name: str) -> ServiceCells:
        """The cells of the service `name`; kept over a removal, so that counters do not fall."""
        cells = self._services.get(name)
        if cells is None:
            cells = self._services[name] = ServiceCells(partial(self._folded, name))
        return cells

    def retain(self, present: Collection[str]) -> None:
        """Drop the cells of the services that have been gone longest, past the last 256 of them."""
        for name in self._services:
            if name in present:
                self._gone.pop(name, None)
            else:
                self._gone.setdefault(name)
        while len(self._gone) > _MAX_GONE_SERVICES:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._services[oldest]

    def on_samples(self, listener: Callable[[str, list[Sample]], None]) -> None:
        """Have `listener` given every sample, with its service, many at a time."""
        self._sample_listeners.append(listener)

    def _folded(self, service: str, samples: list[Sample]) -> None:
        for name, asked in groupby(sorted(samples, key=_ORGANIZATION), _ORGANIZATION):
            charged = [sample[CHARGED] for sample in asked if sample[LAST]]
            if name and charged:
                self.organization(name).add(charged)
        for listener in self._sample_listeners:
            listener(service, samples)

    def organization(self, name: str) -> OrganizationCells:
        """The cells of an organization; those past the first 200 share one."""
        cells = self._organizations.get(name)
        if cells is None:
            if len(self._organizations) >= _MAX_ORGANIZATIONS:
                name = OTHERS
            cells = self._organizations.setdefault(name, OrganizationCells())
        return cells

    def note_rejection(self, code: str) -> None:
        """Count an error that the router itself answered with."""
        self.rejections[code] += 1

    def fold(self) -> None:
        """Bring the cells of every service up to date."""
        for cells in self._services.values():
            cells.fold()

    def add_source(self, source: Callable[[], Iterable[Family]]) -> None:
        """Have `source` asked for further families at each scrape."""
        self._sources.append(source)

    def text(self, *, openmetrics: bool = False) -> str:
        """Everything, in the Prometheus format 0.0.4 or in OpenMetrics 1.0."""
        encode = generate_openmetrics if openmetrics else generate_latest
        # What comes last there ends OpenMetrics as it must: `# EOF`.
        return rendered(self.families(), openmetrics=openmetrics) + encode(self._process).decode()

    def families(self) -> Iterator[Family]:
        """Every family but those of the process and of Python."""
        self.fold()
        yield build_family(self._version)
        yield from request_families(self._services)
        yield from counter_families(self._services)
        yield from histogram_families(self._services)
        yield lag_family(self.loop_lag)
        yield from organization_families(self._organizations)
        yield rejection_family(self.rejections)
        for source in self._sources:
            yield from source()
