"""What is counted: the sample that an attempt leaves, and the cells that samples fold into."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import compress
from operator import attrgetter
from typing import Final

from router.metrics.histogram import FINE_SECONDS, SECONDS, Histogram
from router.metrics.rolling import RollingMinute
from router.model import Usage

_FOLD_AT = 512
_STATUS_CLASS = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_PROMPT_TOKENS = attrgetter("prompt_tokens")
_COMPLETION_TOKENS = attrgetter("completion_tokens")

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

    def add(self, charged: Sequence[Usage | None]) -> None:
        """Count requests, by what was charged for each."""
        self.requests += len(charged)
        usages = [usage for usage in charged if usage is not None]
        self.prompt_tokens += sum(map(_PROMPT_TOKENS, usages))
        self.completion_tokens += sum(map(_COMPLETION_TOKENS, usages))
