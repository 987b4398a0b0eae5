"""What an attempt leaves behind in the numbers."""

from __future__ import annotations

from router.metrics import Sample
from router.proxy.exchange import Call
from router.proxy.relay import Outcome, Relay


def count(relay: Relay, call: Call, now: float) -> None:
    """Hand one ended attempt to its service's cells."""
    outcome = relay.outcome
    usage = relay.tap.usage
    duration_s = now - call.started
    first_byte = relay.first_byte
    relay.service.cells.add(
        Sample(
            now,
            call.path.kind,
            relay.status,
            relay.fault,
            outcome is Outcome.CLIENT_GONE,
            outcome is Outcome.UPSTREAM_BROKE,
            outcome is Outcome.WHOLE,
            relay.sent > 0,
            duration_s,
            first_byte - call.started if first_byte else None,
            call.queued_s,
            relay.sent - call.admitted - call.queued_s - call.connected_s,
            len(call.body),
            relay.body_bytes,
            usage.prompt_tokens,
            usage.completion_tokens,
        )
    )
