"""What a request leaves behind: in the numbers of its services, and in the access log."""

from __future__ import annotations

import time
from time import monotonic
from typing import Protocol

from router.access.identity import Identity
from router.errors import RouterError
from router.metrics import Metrics, Sample
from router.proxy.access_log import AccessLog, Line, moment
from router.proxy.admit import Entry
from router.proxy.exchange import Call
from router.proxy.relay import Outcome, Relay


class Asked(Protocol):
    """A request that no service answered."""

    request_id: bytes
    started: float
    model: str
    entry: Entry | None
    identity: Identity | None


def sample_of(relay: Relay, call: Call, now: float) -> Sample:
    """What one ended attempt leaves behind."""
    outcome = relay.outcome
    usage = relay.usage
    started = call.started
    first_byte = relay.first_byte
    sent = relay.sent
    return (
        now,
        (call.path.kind, relay.status),
        relay.fault,
        outcome is Outcome.CLIENT_GONE,
        outcome is Outcome.UPSTREAM_BROKE,
        relay.is_whole,
        sent > 0,
        now - started,
        first_byte - started if first_byte else -1.0,
        call.queued_s,
        sent - call.admitted - call.queued_s - call.connected_s,
        len(call.body),
        relay.body_bytes,
        usage.prompt_tokens,
        usage.completion_tokens,
        call.model,
        call.organization,
        call.connected_s,
        # Nothing comes after a byte for the client, nor after its end.
        first_byte > 0 or outcome is Outcome.CLIENT_GONE,
        call.request_id,
        call.key_id,
        outcome or "",
        call.meter.charged,
        call.traceparent,
    )


class Account:
    """Counts and tells, once a request.

    Args:
        metrics: counts.
        log: tells; None: nobody wants to know.
    """

    def __init__(self, metrics: Metrics, log: AccessLog | None) -> None:
        self._metrics = metrics
        self._log = log

    def attempt(self, relay: Relay, call: Call) -> None:
        """An attempt has ended; where it was the last of its request, that is told too."""
        relay.counted = True
        relay.service.cells.add(sample_of(relay, call, monotonic()))

    def late(self, relay: Relay, call: Call) -> None:
        """An attempt that had failed and was counted so is the answer after all."""
        if self._log is not None:
            sample = sample_of(relay, call, monotonic())
            self._log.take(relay.service.name, (sample,))

    def refused(self, error: RouterError, asked: Asked | None) -> None:
        """The router itself has answered; `asked` is None before a request was understood."""
        self._metrics.note_rejection(error.code)
        if self._log is not None:
            self._log.add(_line(asked, "refused", error.status, error.code))

    def left(self, asked: Asked) -> None:
        """The client has left before any service was asked."""
        if self._log is not None:
            self._log.add(_line(asked, Outcome.CLIENT_GONE, 0, ""))


def _line(asked: Asked | None, outcome: str, status: int, code: str) -> Line:
    now = moment(time.time())
    if asked is None:
        return Line(now, "", "", outcome, status, 0.0, code=code)
    identity = asked.identity
    return Line(
        now,
        asked.request_id.decode("latin-1"),
        asked.entry.path.kind if asked.entry is not None else "",
        outcome,
        status,
        round((monotonic() - asked.started) * 1e3, 3),
        code=code,
        organization=(identity.organization or "") if identity is not None else "",
        key=(identity.key_id or "") if identity is not None else "",
        model=asked.model,
    )
