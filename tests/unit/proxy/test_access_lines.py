"""The access log: what a line tells, and that no line can hold up anybody."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest

from router.line_writer import LineWriter
from router.metrics import Metrics, Sample
from router.model import Usage
from router.proxy.access_log import AccessLog, Line


def sample(**changes) -> Sample:
    fields = {
        "ended": time.monotonic(),
        "answer": ("chat", 200),
        "fault": None,
        "aborted": False,
        "broke": False,
        "whole": True,
        "sent": True,
        "duration": 0.5,
        "first": 0.25,
        "queued": 0.125,
        "overhead": 0.0001,
        "asked": 10,
        "answered": 20,
        "prompt": 3,
        "completion": 4,
        "model": "m",
        "organization": "acme",
        "connected": 0.0625,
        "last": True,
        "id": b"r-1",
        "key": "acme-1",
        "outcome": "whole",
        "charged": Usage(5, 6),
        "trace": None,
    }
    return tuple((fields | changes).values())


class Written:
    """A log whose lines are read once it has ended."""

    def __init__(self, form="json", share=1.0, chance=lambda: 0.5) -> None:
        self.stream = io.BytesIO()
        self._writer = LineWriter(self.stream)
        self.log = AccessLog(self._writer, form, share, chance)

    def text(self) -> str:
        self._writer.close()
        return self.stream.getvalue().decode()

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def written() -> Written:
    return Written()


def test_a_line_tells_who_asked_what_of_whom_and_what_it_cost(written):
    written.log.take("a", [sample()])
    (line,) = written.lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request", "id": "r-1", "path": "chat", "outcome": "whole", "status": 200,
        "total_ms": 500.0, "organization": "acme", "key": "acme-1", "model": "m", "service": "a",
        "bytes_in": 10, "bytes_out": 20, "prompt_tokens": 5, "completion_tokens": 6,
        "queue_ms": 125.0, "connect_ms": 62.5, "ttft_ms": 250.0,
    }  # fmt: skip


def test_where_nobody_pays_the_engines_own_count_is_told(written):
    written.log.take("a", [sample(charged=None, organization="")])
    (line,) = written.lines()
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 4)
    assert "organization" not in line


def test_an_attempt_that_moved_on_gets_no_line(written):
    written.log.take("a", [sample(last=False), sample()])
    assert len(written.lines()) == 1


def test_what_never_reached_the_client_has_no_status(written):
    written.log.take("a", [sample(first=-1.0, outcome="client_gone", whole=False)])
    (line,) = written.lines()
    assert (line["status"], line["outcome"], "ttft_ms" in line) == (0, "client_gone", False)


def test_the_clients_trace_is_told(written):
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    written.log.take("a", [sample(trace=trace)])
    assert written.lines()[0]["traceparent"] == trace.decode()


def test_it_gets_every_sample_once_the_cells_are_folded(written):
    metrics = Metrics("0")
    metrics.on_samples(written.log.take)
    for _ in range(600):
        metrics.service("a").add(sample())
    metrics.fold()
    assert len(written.lines()) == 600


@pytest.mark.parametrize(("chance", "count"), [(0.09, 1), (0.1, 0)])
def test_of_the_successful_ones_a_share_is_told(chance, count):
    written = Written(share=0.1, chance=lambda: chance)
    written.log.take("a", [sample()])
    assert len(written.lines()) == count


@pytest.mark.parametrize(
    "changes",
    [{"outcome": "client_gone"}, {"outcome": "upstream_broke"}, {"answer": ("chat", 404)}],
)
def test_what_went_wrong_is_always_told(changes):
    written = Written(share=0.0)
    written.log.take("a", [sample(**changes)])
    assert len(written.lines()) == 1


def test_for_people_it_is_one_line_of_columns():
    written = Written("console")
    written.log.take("a", [sample()])
    text = written.text()
    assert text.count("\n") == 1
    for part in ("200", "whole", "chat", "m -> a", "500 ms", "5+6", "acme/acme-1", "r-1"):
        assert part in text


def test_a_name_with_a_line_feed_makes_no_second_line(written):
    written.log.take("a", [sample(model='m"\n{"event":"x"}')])
    assert len(written.lines()) == 1


class Stuck(io.RawIOBase):
    """A pipe that nobody reads until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def write(self, data) -> int:
        self.go.wait()
        return len(data)


def test_what_cannot_be_written_is_dropped_and_counted_and_nobody_waits():
    stream = Stuck()
    writer = LineWriter(stream)
    for _ in range(20):
        writer.put(b"x" * 1024 * 1024, 7)
    assert writer.dropped == 12 * 7
    stream.go.set()
    writer.close()


def test_a_stream_that_is_closed_ends_nothing():
    stream = io.BytesIO()
    stream.close()
    writer = LineWriter(stream)
    writer.put(b"x", 1)
    writer.close()
    assert writer.dropped == 1


def test_a_refusal_is_a_line_of_its_own(written):
    written.log.add(Line("t", "r-2", "chat", "refused", 429, 0.5, code="rate_limit_exceeded"))
    (line,) = written.lines()
    assert (line["status"], line["code"]) == (429, "rate_limit_exceeded")
