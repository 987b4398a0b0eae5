"""What an attempt leaves behind in the numbers."""

from __future__ import annotations

from router.model import Usage
from router.proxy.exchange import Call
from router.proxy.relay import Outcome, Relay

_STATUS_CLASS = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_ENGINE_FAULTS = frozenset({Outcome.FAILED, Outcome.TIMEOUT, Outcome.UPSTREAM_BROKE})


def count(relay: Relay, call: Call, now: float) -> None:
    """Write one ended attempt into its service's cells and recent means."""
    service = relay.service
    cells = service.cells
    usage = relay.tap.usage
    outcome = relay.outcome
    ttft = relay.first_byte - call.started if relay.first_byte else None
    service.request_count += 1
    cells.requests[
        call.path.kind, _STATUS_CLASS[relay.status // 100 if relay.status < 600 else 5]
    ] += 1
    cells.request_bytes += len(call.body)
    cells.response_bytes += relay.body_bytes
    cells.prompt_tokens += usage.prompt_tokens
    cells.completion_tokens += usage.completion_tokens
    if relay.sent:
        cells.queue.observe(call.queued_s)
        cells.overhead.observe(relay.sent - call.admitted - call.queued_s - call.connected_s)
    if outcome is Outcome.WHOLE:
        cells.duration.observe(now - call.started)
    elif outcome is Outcome.CLIENT_GONE:
        cells.client_aborts += 1
    if ttft is not None:
        cells.time_to_first_token.observe(ttft)
    if outcome in _ENGINE_FAULTS or relay.status >= 500:
        service.error_count += 1
        cells.errors[_kind(relay)] += 1
    if outcome is Outcome.UPSTREAM_BROKE:
        cells.streams_truncated += 1
    if call.retries:
        cells.retries["failover"] += 1
    service.usage = Usage(
        service.usage.prompt_tokens + usage.prompt_tokens,
        service.usage.completion_tokens + usage.completion_tokens,
    )
    service.recent.add(now, now - call.started, ttft, usage.completion_tokens)


def _kind(relay: Relay) -> str:
    if relay.error is not None:
        return relay.error.kind
    return "timeout" if relay.outcome is Outcome.TIMEOUT else "status_5xx"
