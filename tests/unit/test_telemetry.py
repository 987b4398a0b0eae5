"""Spans: what one tells, and whose child it is."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from router.telemetry import Spans
from unit.proxy.test_access_lines import sample

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter) -> Spans:
    return Spans(SimpleSpanProcessor(exporter))


def test_a_span_tells_what_was_asked_and_what_it_cost(spans, exporter):
    spans.take("a", [sample()])
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat m"
    assert span.attributes["gen_ai.usage.input_tokens"] == 5
    assert span.attributes["gen_ai.usage.output_tokens"] == 6
    assert span.attributes["router.service"] == "a"
    assert span.attributes["router.request_id"] == "r-1"
    assert span.end_time - span.start_time == pytest.approx(0.5e9, rel=1e-3)


def test_it_is_a_child_of_the_clients_span(spans, exporter):
    spans.take("a", [sample(trace=TRACE)])
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize("trace", [None, b"", b"garbage", b"\xff\xfe", b"00-" + b"0" * 52])
def test_without_a_valid_parent_it_begins_a_trace(spans, exporter, trace):
    spans.take("a", [sample(trace=trace)])
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_the_first_byte_is_an_event(spans, exporter):
    spans.take("a", [sample()])
    (span,) = exporter.get_finished_spans()
    (event,) = span.events
    assert event.timestamp - span.start_time == pytest.approx(0.25e9, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, StatusCode.UNSET),
        ({"whole": False, "outcome": "upstream_broke"}, StatusCode.ERROR),
        ({"answer": ("chat", 500)}, StatusCode.ERROR),
    ],
)
def test_what_went_wrong_is_an_error(spans, exporter, changes, status):
    spans.take("a", [sample(**changes)])
    assert exporter.get_finished_spans()[0].status.status_code is status


def test_an_attempt_that_moved_on_is_no_span(spans, exporter):
    spans.take("a", [sample(last=False)])
    assert exporter.get_finished_spans() == ()
