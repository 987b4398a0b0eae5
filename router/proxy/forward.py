"""From an admitted call to its answer: attempts, failover, and where all is given back.

What moves: a call whose engine refused, broke or answered 5xx before the first byte of its body
went to the client. Inference has no side effects, so an engine that may have begun is no obstacle.
After that byte nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.config.settings import LimitsSettings
from router.errors import BadGateway, Draining, GatewayTimeout, Overloaded, RouterError
from router.fleet.fleet import Fleet, Lease
from router.fleet.service import Service
from router.fleet.waiting import Ticket
from router.log import get_logger
from router.proxy.account import count
from router.proxy.budget import MoveBudget
from router.proxy.exchange import Call, Exchange
from router.proxy.relay import Outcome, Relay
from router.proxy.upstream import ConnectFailed, Disconnected, Upstreams, request_head

_log = get_logger("router.proxy")
MAX_MOVES = 2


class Forwarder:
    """Takes calls to engines.

    Args:
        limits: the queue's settings in force.
        suspect: has a service probed at once.

    Attributes:
        running: attempts under way; the sweep looks at them.
    """

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        limits: Callable[[], LimitsSettings],
        suspect: Callable[[Service], None],
    ) -> None:
        self._fleet = fleet
        self._upstreams = upstreams
        self._limits = limits
        self._suspect = suspect
        self._budget = MoveBudget()
        self.running: set[Relay] = set()

    async def forward(self, exchange: Exchange, call: Call) -> None:
        """Get `call` answered by a service that can, and charged for the answer it got.

        Raises:
            RouterError: nothing has been written, and this is the answer.
        """
        self._budget.note_request(call.started)
        tried: list[Service] = []
        answered: Relay | None = None
        relay: Relay | None = None
        try:
            while len(tried) <= MAX_MOVES:
                lease = await self._lease(call, tried, relay)
                if lease is None:
                    break
                relay = Relay(exchange, call, lease, may_move=len(tried) < MAX_MOVES)
                try:
                    await self._attempt(relay, call)
                finally:
                    self._finish(relay, lease, call)
                if relay.outcome is not Outcome.FAILED:
                    _conclude(relay, call)
                    return
                if relay.held is not None:
                    answered = relay
                tried.append(relay.service)
            if answered is None:
                raise BadGateway(f"No service could answer: {relay.reason if relay else 'none'}.")
            relay = answered
            relay.answer_held()
        finally:
            call.meter.close(relay if relay is not None and relay.first_byte else None)

    async def _lease(self, call: Call, tried: list[Service], failed: Relay | None) -> Lease | None:
        """A slot of a service that has not failed this call; None where it may not move there."""
        try:
            try:
                lease = self._fleet.take(call.model, tried)
            except Overloaded:
                lease = await self._wait(call, tried)
        except RouterError:
            if failed is None:
                raise
            return None
        if failed is not None:
            if not self._budget.take(monotonic()):
                lease.release()
                return None
            failed.service.cells.retries[failed.fault or "error"] += 1
        return lease

    async def _wait(self, call: Call, tried: list[Service]) -> Lease:
        limits = self._limits()
        before = monotonic()
        ticket = Ticket(
            call.organization,
            call.meter.weight,
            call.priority,
            before + limits.queue_timeout_s,
            tried,
        )
        try:
            return await self._fleet.wait(call.model, ticket, limits.max_queue)
        finally:
            call.queued_s += monotonic() - before

    async def _attempt(self, relay: Relay, call: Call) -> None:
        """Send the call, over a connection that is there or a new one, and wait for an outcome."""
        spec = relay.service.spec
        pool = self._upstreams.pool(spec.url)
        start = pool.start_of(call.path.upstream, spec.api_key)
        head = request_head(start, call.lines, len(call.body), call.request_id)
        self.running.add(relay)
        connection = pool.take_idle()
        if connection is not None:
            relay.send(connection, head)
            await relay.done
            if relay.outcome is not Outcome.STALE:
                return
            relay.rearm()
        before = monotonic()
        try:
            connection = await pool.connect()
        except ConnectFailed as error:
            relay.on_broken(error)
            return
        call.connected_s += monotonic() - before
        if relay.outcome is None:
            relay.send(connection, head)
            await relay.done
        else:  # ended by the sweep or by a shutdown while it was connecting
            connection.abort()

    def _finish(self, relay: Relay, lease: Lease, call: Call) -> None:
        """Give back what the attempt took, and count it. Runs once, does not await."""
        relay.abandon()
        self.running.discard(relay)
        if relay.fault is not None:
            self._fault(relay, lease, call)
        lease.release()
        count(relay, call, monotonic())

    def _fault(self, relay: Relay, lease: Lease, call: Call) -> None:
        """The engine is to blame: it is told of, counts against the service, and is looked into."""
        if not relay.first_byte or relay.status >= 500:
            lease.failed(relay.reason, relay.retry_after_s)
        self._suspect(relay.service)
        _log.warning(
            "attempt_failed",
            request_id=call.request_id.decode(),
            service=relay.service.name,
            error=relay.reason,
        )

    def service_down(self, service: Service) -> None:
        """Move what waits for a first byte of a service that is known to be dead or hung."""
        for relay in tuple(self.running):
            if relay.service is service and not relay.first_byte:
                relay.give_up(Disconnected("the service went down"))

    def shut_down(self) -> None:
        """End everything that runs."""
        for relay in tuple(self.running):
            relay.shut_down()


def _conclude(relay: Relay, call: Call) -> None:
    """Turn an end without a byte into its error."""
    if relay.first_byte:
        return
    if relay.outcome is Outcome.TIMEOUT:
        limit = call.limits.request_timeout_s
        raise GatewayTimeout(f"The engine sent nothing within {limit:g} s.")
    if relay.outcome is Outcome.SHUT_DOWN:
        raise Draining("The router is shutting down.", retry_after_s=1)
