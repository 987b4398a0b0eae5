"""One OpenTelemetry span a request, made of the samples that requests leave behind anyway.

An optional part (`pip install '.[otel]'`): without it nothing of this is loaded.
Where and how spans are sent, the standard variables say: OTEL_EXPORTER_OTLP_ENDPOINT, ..._HEADERS,
OTEL_RESOURCE_ATTRIBUTES. Sending is the SDK's own thread's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.metrics import LAST, Sample

_PROPAGATOR = TraceContextTextMapPropagator()
_NS = 1_000_000_000


class Spans:
    """Makes a span of each request's last attempt; a child of the client's `traceparent`.

    Names of attributes are those of the semantic conventions for generative AI, where there is one.

    Args:
        processor: where spans go.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "vllm-compose-router"})
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("router")

    def take(self, service: str, samples: Sequence[Sample]) -> None:
        """Tell of the requests among these attempts."""
        epoch = time.time() - time.monotonic()
        for sample in samples:
            if sample[LAST]:
                self._tell(service, sample, epoch)

    def close(self) -> None:
        """Send what waits, and end. Blocks."""
        self._provider.shutdown()

    def _tell(self, service: str, sample: Sample, epoch: float) -> None:
        (
            ended, (path, status), fault, _, _, whole, _, duration, first, queued, _, _, _, prompt,
            completion, model, organization, _, _, request_id, _, outcome, charged, parent,
        ) = sample  # fmt: skip
        carrier = {"traceparent": parent.decode("latin-1")} if parent is not None else {}
        span = self._tracer.start_span(
            f"{path} {model}",
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=int((epoch + ended - duration) * _NS),
            attributes={
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": prompt if charged is None else charged.prompt_tokens,
                "gen_ai.usage.output_tokens": (
                    completion if charged is None else charged.completion_tokens
                ),
                "http.response.status_code": status,
                "router.service": service,
                "router.organization": organization,
                "router.request_id": request_id.decode("latin-1"),
                "router.outcome": outcome,
                "router.queue_s": queued,
            },
        )
        if first >= 0:
            span.add_event("first_byte", timestamp=int((epoch + ended - duration + first) * _NS))
        if not whole or status >= 500:
            span.set_status(Status(StatusCode.ERROR, fault or outcome))
        span.end(int((epoch + ended) * _NS))


def exporting() -> Spans:
    """Spans that are sent by OTLP over HTTP, as the environment says."""
    return Spans(BatchSpanProcessor(OTLPSpanExporter()))
