"""One attempt at an engine: its answer, held until the first byte, then passed on as it comes.

One read, one write: `on_data` is called from the engine's socket callback and writes to the
client's transport before it returns. There is no task, no queue and no copy in between.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from time import monotonic

from router.errors import (
    ServerShuttingDown,
    StreamBroken,
    UpstreamDisconnected,
    UpstreamTimeout,
)
from router.fleet.lease import Lease
from router.model import NO_USAGE
from router.openai.envelope import error_event
from router.openai.stream_taps import NumberedTap
from router.openai.usage import Tap
from router.proxy.answer import Disconnected, Head, UpstreamError
from router.proxy.exchange import Call, Exchange
from router.proxy.upstream_connection import UpstreamConnection

_HELD_LIMIT_BYTES = 1024 * 1024


class Outcome(enum.StrEnum):
    """How an attempt ended, as logs call it."""

    WHOLE = "whole"
    CLIENT_GONE = "client_gone"
    SLOW_CLIENT = "slow_client"
    STALE = "stale"
    """A reused connection that ended before a byte came: nobody's fault, free to try again."""
    FAILED = "failed"
    """Nothing has reached the client, so another service may take the call."""
    TIMEOUT = "timeout"
    UPSTREAM_BROKE = "upstream_broke"
    SHUT_DOWN = "shut_down"


class Relay:
    """Listens to one answer and writes it to one client.

    Attributes:
        service: that is asked.
        outcome: None while it runs.
        is_whole: the client has got all of the answer.
        fault: kind of the engine's fault, a metrics label; None where it has none.
        head: the answer's head, once it is there.
        status: of the answer; 0 where there was none.
        held: body of a 5xx that was kept back so that another service may be tried.
        tap: reads the answer's usage; None before its head.
        usage: what it has read, once the attempt has ended.
        sent: monotonic time at which the call was sent; 0.0 before.
        first_byte: monotonic time of the body's first byte; 0.0 before.
        body_bytes: of the answer so far.
        counted: it has been told of.
    """

    # What most attempts never change costs them nothing here.
    outcome: Outcome | None = None
    is_whole = False
    fault: str | None = None
    head: Head | None = None
    status = 0
    held: list[bytes] | None = None
    tap: Tap | None = None
    usage = NO_USAGE
    sent = 0.0
    first_byte = 0.0
    body_bytes = 0
    counted = False
    _connection: UpstreamConnection | None = None
    _error: UpstreamError | None = None
    _latest = 0.0
    _paused = False

    def __init__(
        self,
        exchange: Exchange,
        call: Call,
        lease: Lease,
        *,
        may_move: bool,
        ended: Callable[[Relay], None],
    ) -> None:
        self._exchange = exchange
        self._call = call
        self._lease = lease
        self._holds = may_move
        self._ended = ended
        self.service = lease.service

    def __repr__(self) -> str:
        return f"<Relay {self.service.name} {self.outcome or 'running'} {self.body_bytes} B>"

    @property
    def events(self) -> int:
        """That the answer came in, so far."""
        return self.tap.events if self.tap is not None else 0

    @property
    def reason(self) -> str:
        """What was wrong, for people."""
        if self._error is not None:
            return str(self._error)
        return f"status {self.status}" if self.head is not None else str(self.outcome)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds for which the engine asked to be left alone."""
        told = self.head.retry_after if self.head is not None else None
        return float(told) if told is not None and told.isdigit() else None

    # -- before --------------------------------------------------------------------------------

    def send(self, connection: UpstreamConnection, head: bytes) -> None:
        """Send the call over `connection` and listen to what it answers."""
        self._connection = connection
        self._exchange.flow = self
        self.sent = monotonic()
        connection.send(head, self._call.body, self)

    def rearm(self) -> None:
        """Make ready for another connection after a stale one."""
        self.outcome = self._error = None

    # -- the answer, as the connection tells it ------------------------------------------------

    def on_head(self, head: Head) -> None:
        """Hold the head: engines send it at once, even for what they have only queued."""
        self.head = head
        self.status = head.status
        if self._holds and head.status >= 500:
            self.held = []
        self.tap = self._call.meter.tap(self._call.path, streams=head.streams)

    def on_data(self, data: bytes) -> None:
        """Pass on what one read brought."""
        now = self.service.heard = monotonic()
        self.body_bytes += len(data)
        if self.held is not None:
            self._hold(data)
            return
        assert self.tap is not None
        data = self.tap.feed(data)
        if not data:
            return
        if self.first_byte:
            self._exchange.write(data)
            self.service.cells.inter_token.observe(now - self._latest)
        else:
            self._begin(data, now)
        self._latest = now

    def on_end(self) -> None:
        """The answer is whole."""
        if self.held is not None:
            self._close(Outcome.FAILED, "status_5xx")
            return
        assert self.tap is not None
        rest = self.tap.end()
        if not self.first_byte:
            self._begin(rest, monotonic())
        elif rest:
            self._exchange.write(rest)
        self._exchange.finish()
        self._close(Outcome.WHOLE, "status_5xx" if self.status >= 500 else None)

    def on_broken(self, error: UpstreamError) -> None:
        """The engine broke the exchange."""
        if self.outcome is not None:
            return
        if self.first_byte:
            self._error = error
            self._break_off(UpstreamDisconnected("The engine broke off its answer."))
            self._close(Outcome.UPSTREAM_BROKE, error.kind)
        elif self._is_stale(error):
            self._close(Outcome.STALE)
        else:
            self._fail(error)

    def _is_stale(self, error: UpstreamError) -> bool:
        """Whether the engine merely closed a connection that had been idle."""
        connection = self._connection
        return (
            isinstance(error, Disconnected)
            and connection is not None
            and connection.reused
            and connection.is_unanswered
        )

    def _begin(self, first: bytes, now: float) -> None:
        head = self.head
        assert head is not None
        self.first_byte = now
        if head.status < 400:
            self._lease.succeeded()
        lines = self._lines(head, now)
        self._exchange.start(head.status, head.reason, lines, self._length(head), first)

    def _length(self, head: Head) -> int | None:
        """The length that the client is told: none where the tap may take something out."""
        return None if self.tap is not None and self.tap.cuts else head.length

    def _lines(self, head: Head, now: float) -> bytes:
        """The answer's header lines: the engine's end-to-end ones and the router's own."""
        call = self._call
        return (
            b"%b%bx-request-id: %b\r\nx-router-service: %b\r\n"
            b"server-timing: queue;dur=%.2f, connect;dur=%.2f, ttft;dur=%.2f\r\n"
        ) % (
            head.lines,
            call.meter.rate_lines(now),
            call.request_id,
            self.service.label,
            call.queued_s * 1e3,
            call.connected_s * 1e3,
            (now - call.started) * 1e3,
        )

    def answer_held(self) -> None:
        """Pass on a kept-back answer after all, as it is: no service was left to do better."""
        assert self.head is not None
        assert self.held is not None
        body = b"".join(self.held)
        self.first_byte = monotonic()
        lines = self._lines(self.head, self.first_byte)
        self._exchange.start(self.head.status, self.head.reason, lines, len(body), body)
        self._exchange.finish()

    def _hold(self, data: bytes) -> None:
        assert self.held is not None
        self.held.append(data)
        if self.body_bytes > _HELD_LIMIT_BYTES:
            self.give_up(UpstreamError(f"an error of over {_HELD_LIMIT_BYTES} bytes"))

    # -- the client's pace ---------------------------------------------------------------------

    def pause(self) -> None:
        """The client does not keep up: let the engine's socket fill."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """It has caught up."""
        self._paused = False
        self._latest = monotonic()
        if self._connection is not None:
            self._connection.resume()

    # -- ends that the engine does not bring ---------------------------------------------------

    def check(self, now: float) -> None:
        """End the attempt if it has waited too long; called by the sweep."""
        if self.outcome is not None:
            return
        limits = self._call.limits
        if not self.first_byte:
            if now - self._call.started > limits.request_timeout_s:
                # Not its fault where its client, the queue or another engine took most of it.
                blamed = self.sent and now - self.sent > limits.request_timeout_s / 2
                self._abort_upstream()
                self._close(Outcome.TIMEOUT, "timeout" if blamed else None)
        elif now - self._latest > limits.idle_timeout_s:
            self._abort_upstream()
            if self._paused:
                self._exchange.cut()
                self._close(Outcome.SLOW_CLIENT)
            else:
                self._break_off(UpstreamTimeout(f"No byte for {limits.idle_timeout_s:g} s."))
                self._close(Outcome.UPSTREAM_BROKE, "idle_timeout")

    def note_progress(self) -> None:
        """Tell the meter what the answer has cost so far, and that it is alive; by the sweep."""
        self._call.meter.progress(self.tap if self.first_byte else None)

    def give_up(self, error: UpstreamError) -> None:
        """End an attempt that has brought no byte: its service is known to be no good."""
        if self.outcome is None and not self.first_byte:
            self._abort_upstream()
            self._fail(error)

    def shut_down(self) -> None:
        """End the attempt because the router ends."""
        if self.outcome is None:
            self._abort_upstream()
            if self.first_byte:
                self._break_off(ServerShuttingDown("The router is shutting down."))
            self._close(Outcome.SHUT_DOWN)

    def abandon(self) -> None:
        """End the attempt because the client is gone, or because of a fault; idempotent."""
        if self.outcome is None:
            connection = self._connection
            if connection is not None and self.sent:
                connection.on_closed = partial(self._released, monotonic())
            self._abort_upstream()
            self._close(Outcome.CLIENT_GONE)

    def _released(self, left_at: float) -> None:
        """The engine has been told to stop: its connection is closed."""
        self.service.cells.abort_release.observe(monotonic() - left_at)

    def _fail(self, error: UpstreamError) -> None:
        self._error = error
        self.held = None
        self._close(Outcome.FAILED, error.kind)

    def _break_off(self, error: StreamBroken) -> None:
        """Tell the client that what it has is not all: by an event, or by a short body."""
        head = self.head
        if head is not None and head.streams and self._length(head) is None:
            number = self.tap.next_number if isinstance(self.tap, NumberedTap) else 0
            self._exchange.write(error_event(error, self._call.path.dialect, number))
            self._exchange.finish()
        else:
            self._exchange.cut()

    def _abort_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _close(self, outcome: Outcome, fault: str | None = None) -> None:
        self.outcome = outcome
        self.is_whole = outcome is Outcome.WHOLE
        self.fault = fault
        if self.tap is not None:
            self.usage = self.tap.usage
        self._connection = None
        self._exchange.flow = None
        self._ended(self)
