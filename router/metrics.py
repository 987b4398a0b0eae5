"""The router's measurements: cheap cells that the hot path writes, read only when scraped.

prometheus-client's own counters cost a lock and a label lookup each; a request touches about ten.
Here a cell is an attribute or a list element, and one collector turns all cells into samples.
Label values come from configuration and from the router's own code, never from a client.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import compress

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip
"""Bucket bounds for what an engine takes: 1 ms to 10 min."""
FINE_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
)  # fmt: skip
"""Bucket bounds for what the router itself takes: 50 µs to 1 s."""


_FOLD_AT = 512
_STATUS_CLASS = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Histogram:
    """Counts by bucket, and the sum; bounds are upper and inclusive, as in Prometheus."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the histogram's base unit."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: list[float]) -> None:
        """Count many values."""
        values.sort()
        below = 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound, below)
            self.counts[place] += upto - below
            below = upto
        self.counts[-1] += len(values) - below
        self.total += sum(values)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as prometheus-client wants them."""
        rows: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip(
            (*map(str, map(float, self.bounds)), "+Inf"), self.counts, strict=True
        ):
            running += count
            rows.append((bound, running))
        return rows


class RollingMinute:
    """Sums over the last minute, in six slots of ten seconds."""

    __slots__ = ("_slots", "_stamps")
    _SLOT_S = 10.0
    _COUNT = 6

    def __init__(self) -> None:
        self._slots = [[0.0] * 5 for _ in range(self._COUNT)]
        self._stamps = [-1] * self._COUNT

    def add(
        self,
        now: float,
        *,
        count: int,
        duration_s: float,
        first_count: int,
        first_s: float,
        tokens: int,
    ) -> None:
        """Count exchanges that ended about `now`: sums of their durations, first bytes, tokens."""
        stamp = int(now / self._SLOT_S)
        place = stamp % self._COUNT
        if self._stamps[place] != stamp:
            self._stamps[place] = stamp
            self._slots[place] = [0.0] * 5
        slot = self._slots[place]
        for column, more in enumerate((count, duration_s, first_count, first_s, tokens)):
            slot[column] += more

    def means(self, now: float) -> dict[str, float]:
        """`response_time` and `ttft` in seconds (0 without any), `tokens_per_second`."""
        count, duration, first_count, first, tokens = self._sums(now)
        return {
            "response_time": duration / count if count else 0.0,
            "ttft": first / first_count if first_count else 0.0,
            "tokens_per_second": tokens / (self._SLOT_S * self._COUNT),
        }

    def ended(self, now: float) -> float:
        """Exchanges that ended in the last minute."""
        return self._sums(now)[0]

    def _sums(self, now: float) -> list[float]:
        oldest = int(now / self._SLOT_S) - self._COUNT + 1
        live = [s for s, stamp in zip(self._slots, self._stamps, strict=True) if stamp >= oldest]
        return [sum(slot[place] for slot in live) for place in range(5)]


Sample = tuple[
    float, tuple[str, int], str | None, bool, bool, bool, bool,
    float, float, float, float, int, int, int, int,
]  # fmt: skip
"""What one ended attempt leaves behind, times in seconds: when it ended (monotonic); kind of path
and status (0 without an answer); kind of the engine's fault, or None; whether the client left, the
engine broke it off after the first byte, the client got all of it, and it was sent at all; the
duration; time to first byte (negative without one); wait for a slot; the router's own share until
it was sent; bytes of the request and of the answer; prompt and completion tokens."""


class ServiceCells:
    """All cells of one service.

    An exchange appends one sample; samples are folded into the cells many at a time, while the
    code that does so is in the processor's cache.
    """

    __slots__ = (
        "_samples", "away", "client_aborts", "completion_tokens", "duration", "error_count",
        "errors", "inter_token", "overhead", "prompt_tokens", "queue", "recent", "request_bytes",
        "request_count", "requests", "response_bytes", "retries", "streams_truncated",
        "time_to_first_token", "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.retries: defaultdict[str, int] = defaultdict(int)
        self.transitions: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.recent = RollingMinute()
        self.request_count = 0
        self.error_count = 0
        self.client_aborts = 0
        self.streams_truncated = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.away = Histogram(SECONDS)
        self.duration = Histogram(SECONDS)
        self.time_to_first_token = Histogram(SECONDS)
        self.inter_token = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.overhead = Histogram(FINE_SECONDS)

    def add(self, sample: Sample) -> None:
        """Take a sample; it counts from the next `fold` on."""
        samples = self._samples
        samples.append(sample)
        if len(samples) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Bring the cells up to date: column by column, which costs far less than one by one."""
        if not self._samples:
            return
        samples, self._samples = self._samples, []
        (
            ended, answers, faults, aborted, broke, whole, sent,
            durations, firsts, queued, overheads, asked, answered, prompts, completions,
        ) = zip(*samples, strict=True)  # fmt: skip
        self.request_count += len(samples)
        for (path, status), number in Counter(answers).items():
            self.requests[path, _STATUS_CLASS[min(status // 100, 5)]] += number
        for fault, number in Counter(faults).items():
            if fault is not None:
                self.errors[fault] += number
                self.error_count += number
        self.client_aborts += sum(aborted)
        self.streams_truncated += sum(broke)
        self.request_bytes += sum(asked)
        self.response_bytes += sum(answered)
        self.prompt_tokens += sum(prompts)
        self.completion_tokens += sum(completions)
        began = [first for first in firsts if first >= 0]
        self.time_to_first_token.observe_all(began)
        self.duration.observe_all(list(compress(durations, whole)))
        self.queue.observe_all(list(compress(queued, sent)))
        self.overhead.observe_all(list(compress(overheads, sent)))
        self.recent.add(
            ended[-1],
            count=len(samples),
            duration_s=sum(durations),
            first_count=len(began),
            first_s=sum(began),
            tokens=sum(completions),
        )

    def note_state(self, was: str, state: str, was_for_s: float) -> None:
        """Count a change of a service's state; the time away counts once it is healthy again."""
        self.transitions[was, state] += 1
        if state == "healthy":
            self.away.observe(was_for_s)


_HISTOGRAMS = (
    ("duration", "router_request_duration_seconds", "Head of the request to end of the answer."),
    (
        "time_to_first_token",
        "router_time_to_first_token_seconds",
        "Head of the request to first byte of the answer's body.",
    ),
    (
        "inter_token",
        "router_inter_token_latency_seconds",
        "Time between two events of a stream.",
    ),
    (
        "away",
        "router_service_away_seconds",
        "Time a service was in the state it was in before it was healthy again.",
    ),
    ("queue", "router_queue_duration_seconds", "Wait for a slot of a service."),
    (
        "overhead",
        "router_overhead_seconds",
        "The router's own share of the time to first token: whole request read to sent upstream.",
    ),
)
_COUNTERS = (
    ("request_bytes", "router_request_bytes", "Bytes of request bodies sent upstream."),
    ("response_bytes", "router_response_bytes", "Bytes of answer bodies relayed."),
    ("streams_truncated", "router_streams_truncated", "Answers that broke after their first byte."),
    ("client_aborts", "router_client_aborts", "Exchanges that the client left before their end."),
)


class Metrics:
    """Owner of all cells and of the registry that exposes them.

    `gauges` are read at scrape time: callables that yield (labels, value) rows.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._services: dict[str, ServiceCells] = {}
        self.rejections: defaultdict[str, int] = defaultdict(int)
        self._gauges: list[Callable[[], Iterable[Metric]]] = []
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Cells(self))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def service(self, name: str) -> ServiceCells:
        """The cells of the service `name`; kept over a removal, so that counters never fall."""
        cells = self._services.get(name)
        if cells is None:
            cells = self._services[name] = ServiceCells()
        return cells

    def fold(self) -> None:
        """Bring the cells of every service up to date."""
        for cells in self._services.values():
            cells.fold()

    def add_source(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Have `source` asked for further families at each scrape."""
        self._gauges.append(source)

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        self.fold()
        yield InfoMetricFamily("router_build", "The running version.", {"version": self._version})
        yield from self._request_families()
        yield from self._histogram_families()
        rejections = CounterMetricFamily(
            "router_rejections", "Requests the router answered itself, by code.", labels=["code"]
        )
        for code, count in self.rejections.items():
            rejections.add_metric([code], count)
        yield rejections
        for source in self._gauges:
            yield from source()

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "router_requests", "Answers by a service.", labels=["service", "path", "status"]
        )
        errors = CounterMetricFamily(
            "router_upstream_errors", "Failed attempts at a service.", labels=["service", "kind"]
        )
        retries = CounterMetricFamily(
            "router_upstream_retries", "Attempts after the first.", labels=["service", "reason"]
        )
        transitions = CounterMetricFamily(
            "router_service_transitions",
            "Changes of a service's state.",
            labels=["service", "was", "state"],
        )
        tokens = CounterMetricFamily(
            "router_tokens", "Tokens, as the engines report them.", labels=["service", "kind"]
        )
        for name, cells in self._services.items():
            for (path, status), count in cells.requests.items():
                requests.add_metric([name, path, status], count)
            for kind, count in cells.errors.items():
                errors.add_metric([name, kind], count)
            for reason, count in cells.retries.items():
                retries.add_metric([name, reason], count)
            for (was, state), count in cells.transitions.items():
                transitions.add_metric([name, was, state], count)
            tokens.add_metric([name, "prompt"], cells.prompt_tokens)
            tokens.add_metric([name, "completion"], cells.completion_tokens)
        yield from (requests, errors, retries, transitions, tokens)
        for attribute, metric_name, text in _COUNTERS:
            family = CounterMetricFamily(metric_name, text, labels=["service"])
            for name, cells in self._services.items():
                family.add_metric([name], getattr(cells, attribute))
            yield family

    def _histogram_families(self) -> Iterator[Metric]:
        for attribute, metric_name, text in _HISTOGRAMS:
            family = HistogramMetricFamily(metric_name, text, labels=["service"])
            for name, cells in self._services.items():
                histogram: Histogram = getattr(cells, attribute)
                family.add_metric([name], histogram.buckets(), histogram.total)
            yield family


class _Cells(Collector):
    """The registry's view of `Metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Hand out every family."""
        return self._metrics.collect()


def gauge(
    name: str, text: str, rows: Iterable[tuple[list[str], float]], labels: list[str]
) -> Metric:
    """A gauge family from (label values, value) rows."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
