"""CPU time of what listens, counts and tells, beside a request's own work: printed, in one run.

    python -m bench.pieces

Each piece runs alone, in a loop, on the messages of `bench.wire`; the least of many rounds counts,
so a busy machine changes little. In the router, where a piece's code has left the processor's cache
between two requests, expect two to three times as much: `bench.added_cost --of log` measures there.
"""

import io
import time
from collections.abc import Callable

from bench import wire
from router.line_writer import LineWriter
from router.metrics import SECONDS, Histogram, Metrics, Sample
from router.model import Usage
from router.openai.stream_taps import UsageFilter, UsageTap
from router.openai.unary_tap import BodyTap
from router.proxy.access_log import AccessLog

ROUNDS, TIMES = 60, 2000
ANSWER = wire.unary_answer()
EVENT = wire.event_chunk(time.monotonic_ns()).split(b"\r\n", 1)[1][:-2]
TOLD = EVENT.replace(
    b'],"sent_ns"',
    b'],"usage":{"prompt_tokens":190,"total_tokens":191,"completion_tokens":1},"sent_ns"',
)


def least_us(piece: Callable[[], object]) -> float:
    """Microseconds that a call takes where nothing disturbs it."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(TIMES):
            piece()
        best = min(best, (time.thread_time_ns() - began) / TIMES / 1000)
    return best


def sample(now: float) -> Sample:
    """What an attempt leaves behind."""
    return (
        now, ("chat", 200), None, False, False, True, True, 0.5, 0.25, 0.0, 0.0001, 1024, 1024,
        190, 128, wire.MODEL, "bench", 0.0, True, b"0af7651916cd43dd8448eb211c80319c", "bench-1",
        "whole", Usage(190, 128), None,
    )  # fmt: skip


def read_answer() -> None:
    tap = BodyTap()
    tap.feed(ANSWER)
    assert tap.usage.prompt_tokens == 190


def counting(log: AccessLog | None) -> Callable[[], None]:
    """Count a request, with everything that is due later; and tell it, where there is a log."""
    metrics = Metrics("0")
    if log is not None:
        metrics.on_samples(log.take)
    cells = metrics.service("a")
    return lambda: cells.add(sample(time.monotonic()))


def main() -> int:
    """Exit status: 0."""
    histogram = Histogram(SECONDS)
    plain, asked = UsageTap(), UsageFilter(keep_last=False, keep_each=False, continuous=True)
    counted = least_us(counting(None))
    writer = LineWriter(io.FileIO("/dev/null", "wb"))  # type: ignore[arg-type]
    told = least_us(counting(AccessLog(writer, "json")))
    writer.close()
    rows = [
        ("tap, a unary answer of 1 KiB", least_us(read_answer)),
        ("tap, an event", least_us(lambda: plain.feed(EVENT))),
        ("tap, an event whose usage is taken out", least_us(lambda: asked.feed(TOLD))),
        ("metrics, a request", counted),
        ("metrics, an event (inter-token latency)", least_us(lambda: histogram.observe(0.01))),
        ("access log, a request", told - counted),
    ]
    for name, cost in rows:
        print(f"{name:42} {cost:6.2f} CPU µs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
