"""The router's measurements: cheap cells that the hot path writes, read only when scraped.

prometheus-client's own counters cost a lock and a label lookup each; a request touches about ten.
Here a cell is an attribute or a list element, and a scrape turns all cells into lines.
Label values come from configuration and from the router's own code, never from a client.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import compress
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from router.exposition import Family, bound_text, rendered
from router.model import Usage

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip
"""Bucket bounds for what an engine takes: 1 ms to 10 min."""
FINE_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
)  # fmt: skip
"""Bucket bounds for what the router itself takes: 50 µs to 1 s."""


_FOLD_AT = 512
_MAX_ORGANIZATIONS = 200
_MAX_GONE_SERVICES = 256
OTHERS = "other"
"""Stands for every organization past the first 200."""
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

    def shape(self) -> list[tuple[str, int]]:
        """Its buckets, see `Family.add_histogram`."""
        return list(zip(_bound_texts(self.bounds), self.counts, strict=True))


@cache
def _bound_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(bound_text, bounds), bound_text(inf))


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
    str, str, float, bool, bytes, str | None, str, Usage | None, bytes | None,
]  # fmt: skip
"""What one ended attempt leaves behind, times in seconds: when it ended (monotonic); kind of path
and status (0 without an answer); kind of the engine's fault, or None; whether the client left, the
engine broke it off after the first byte, the client got all of it, and it was sent at all; the
duration; time to first byte (negative without one); wait for a slot; the router's own share until
it was sent; bytes of the request and of the answer; prompt and completion tokens.

Then: the model; the organization, empty for the anonymous; seconds that connecting took; whether
this was the last attempt of its request; the request's id; the key's id, or None; how it ended;
what was charged, None where nobody pays; the client's `traceparent`, or None."""
ORGANIZATION: Final = 16
LAST: Final = 18
CHARGED: Final = 22
"""Places in a sample."""


class ServiceCells:
    """All cells of one service.

    An exchange appends one sample; samples are folded into the cells many at a time, while the
    code that does so is in the processor's cache.
    """

    __slots__ = (
        "_listener", "_samples", "abort_release", "away", "client_aborts", "completion_tokens",
        "connect", "duration", "error_count", "errors", "inter_token", "leave", "overhead",
        "prompt_tokens",
        "queue", "recent", "request_bytes", "request_count", "requests", "response_bytes",
        "retries", "streams_truncated", "time_to_first_token", "tokens", "transitions",
    )  # fmt: skip

    def __init__(self, listener: Callable[[list[Sample]], None] | None = None) -> None:
        self._listener = listener
        self._samples: list[Sample] = []
        self.tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
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
        self.abort_release = Histogram(FINE_SECONDS)
        self.away = Histogram(SECONDS)
        self.connect = Histogram(SECONDS)
        self.leave = Histogram(SECONDS)
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
            models, _, connected, *_,
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
        for model in set(models):
            ofs = [each == model for each in models]
            self.tokens[model, "prompt"] += sum(compress(prompts, ofs))
            self.tokens[model, "completion"] += sum(compress(completions, ofs))
        self.connect.observe_all([each for each in connected if each > 0])
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
        if self._listener is not None:
            self._listener(samples)

    def note_state(self, was: str, state: str, was_for_s: float) -> None:
        """Count a change of a service's state; the time away counts once it is healthy again."""
        self.transitions[was, state] += 1
        if state == "healthy":
            self.away.observe(was_for_s)


class OrganizationCells:
    """What an organization was answered, and charged for it."""

    __slots__ = ("completion_tokens", "prompt_tokens", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def add(self, sample: Sample) -> None:
        """Count a request's last attempt."""
        self.requests += 1
        charged = sample[CHARGED]
        if charged is not None:
            self.prompt_tokens += charged.prompt_tokens
            self.completion_tokens += charged.completion_tokens


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
    (
        "leave",
        "router_service_leave_seconds",
        "From the first sign of a fault to the state that takes the service out.",
    ),
    ("queue", "router_queue_duration_seconds", "Wait for a slot of a service."),
    ("connect", "router_upstream_connect_seconds", "Time that a new connection took."),
    (
        "abort_release",
        "router_abort_release_seconds",
        "From the client's leaving to the close of the connection that the engine worked for.",
    ),
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
    """Owner of all cells, and what shows them."""

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
        for sample in samples:
            if sample[ORGANIZATION] and sample[LAST]:
                self.organization(sample[ORGANIZATION]).add(sample)
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
        build = Family("info", "router_build", "The running version.", ["version"])
        build.add([self._version], 1)
        yield build
        yield from self._request_families()
        yield from self._histogram_families()
        yield from self._organization_families()
        rejections = Family(
            "counter",
            "router_rejections",
            "Requests the router answered itself, by code.",
            ["code"],
        )
        for code, count in self.rejections.items():
            rejections.add([code], count)
        yield rejections
        for source in self._sources:
            yield from source()

    def _request_families(self) -> Iterator[Family]:
        requests = Family(
            "counter", "router_requests", "Answers by a service.", ["service", "path", "status"]
        )
        errors = Family(
            "counter",
            "router_upstream_errors",
            "Failed attempts at a service.",
            ["service", "kind"],
        )
        retries = Family(
            "counter", "router_upstream_retries", "Attempts after the first.", ["service", "reason"]
        )
        transitions = Family(
            "counter",
            "router_service_transitions",
            "Changes of a service's state.",
            ["service", "was", "state"],
        )
        tokens = Family(
            "counter",
            "router_tokens",
            "Tokens, as the engines report them.",
            ["service", "model", "kind"],
        )
        for name, cells in self._services.items():
            for (path, status), count in cells.requests.items():
                requests.add([name, path, status], count)
            for kind, count in cells.errors.items():
                errors.add([name, kind], count)
            for reason, count in cells.retries.items():
                retries.add([name, reason], count)
            for (was, state), count in cells.transitions.items():
                transitions.add([name, was, state], count)
            for (model, kind), count in cells.tokens.items():
                tokens.add([name, model, kind], count)
        yield from (requests, errors, retries, transitions, tokens)
        for attribute, metric_name, text in _COUNTERS:
            family = Family("counter", metric_name, text, ["service"])
            for name, cells in self._services.items():
                family.add([name], getattr(cells, attribute))
            yield family

    def _organization_families(self) -> Iterator[Family]:
        requests = Family(
            "counter", "router_organization_requests", "Requests answered.", ["organization"]
        )
        tokens = Family(
            "counter", "router_organization_tokens", "Tokens charged.", ["organization", "kind"]
        )
        for name, cells in self._organizations.items():
            requests.add([name], cells.requests)
            tokens.add([name, "prompt"], cells.prompt_tokens)
            tokens.add([name, "completion"], cells.completion_tokens)
        yield from (requests, tokens)

    def _histogram_families(self) -> Iterator[Family]:
        for attribute, metric_name, text in _HISTOGRAMS:
            family = Family("histogram", metric_name, text, ["service"])
            for name, cells in self._services.items():
                histogram: Histogram = getattr(cells, attribute)
                family.add_histogram([name], histogram.shape(), histogram.total)
            yield family
        lag = Family(
            "histogram",
            "router_event_loop_lag_seconds",
            "How late the event loop runs what is due.",
        )
        lag.add_histogram([], self.loop_lag.shape(), self.loop_lag.total)
        yield lag


def gauge(
    name: str, text: str, rows: Iterable[tuple[Sequence[str], float]], labels: Sequence[str]
) -> Family:
    """A gauge family from (label values, value) rows."""
    family = Family("gauge", name, text, labels)
    for values, value in rows:
        family.add(values, value)
    return family
