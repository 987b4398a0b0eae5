"""What an attempt leaves behind in the numbers."""

from __future__ import annotations

from router.model import Usage
from router.proxy.exchange import Call
from router.proxy.relay import Outcome, Relay

_NO_USAGE = Usage()


def count(relay: Relay, call: Call, now: float) -> None:
    """Hand one ended attempt to its service's cells."""
    outcome = relay.outcome
    usage = relay.tap.usage if relay.tap is not None else _NO_USAGE
    started = call.started
    first_byte = relay.first_byte
    sent = relay.sent
    relay.service.cells.add(
        (
            now,
            (call.path.kind, relay.status),
            relay.fault,
            outcome is Outcome.CLIENT_GONE,
            outcome is Outcome.UPSTREAM_BROKE,
            outcome is Outcome.WHOLE,
            sent > 0,
            now - started,
            first_byte - started if first_byte else -1.0,
            call.queued_s,
            sent - call.admitted - call.queued_s - call.connected_s,
            len(call.body),
            relay.body_bytes,
            usage.prompt_tokens,
            usage.completion_tokens,
        )
    )
