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
from router.fleet.fleet import Fleet
from router.fleet.lease import Lease
from router.fleet.service import Service
from router.fleet.waiting import Ticket
from router.log import get_logger
from router.proxy.account import Account
from router.proxy.answer import ConnectFailed, Disconnected
from router.proxy.budget import MoveBudget
from router.proxy.exchange import Call, Exchange
from router.proxy.relay import Outcome, Relay
from router.proxy.upstream import UpstreamPool, Upstreams, request_head

_log = get_logger("router.proxy")
MAX_MOVES = 2

Refuse = Callable[[Exchange, RouterError, str | None], None]


class Forwarder:
    """Takes calls to engines.

    Args:
        limits: the queue's settings in force.
        suspect: has a service probed at once.

    Attributes:
        account: told of every attempt.
        fleet: leases services.
        upstreams: has the connections to them.
        limits: see above.
        budget: how many calls may move.
        running: attempts under way; the sweep looks at them.
        is_over: no engine is asked any more.
    """

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        limits: Callable[[], LimitsSettings],
        suspect: Callable[[Service], None],
        account: Account,
    ) -> None:
        self.account = account
        self.fleet = fleet
        self.upstreams = upstreams
        self.limits = limits
        self.budget = MoveBudget()
        self.running: set[Relay] = set()
        self.is_over = False
        self._suspect = suspect

    def forward(self, exchange: Exchange, call: Call, refuse: Refuse) -> None:
        """Get `call` answered by a service that can, and charged for the answer it got."""
        self.budget.note_request()
        exchange.journey = journey = CallJourney(self, exchange, call, refuse)
        journey.go()

    def fault(self, relay: Relay, lease: Lease, call: Call) -> None:
        """The engine is to blame: it is told of, counts against the service, and is looked into.

        It does not count where the service is known to be down: why is known too, and better.
        """
        if relay.service.usable and (not relay.first_byte or relay.status >= 500):
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
        """End everything that runs or waits for a slot, and ask no engine from now on."""
        self.is_over = True
        self.fleet.refuse_waiting(_draining)  # before a slot comes back and is given to them
        for relay in tuple(self.running):
            relay.shut_down()


class CallJourney:
    """One call's way over the services, until it is answered, refused or left by its client.

    Moves from callback to callback; only a wait in line and a new connection need a task.
    """

    _lease: Lease | None = None
    _relay: Relay | None = None
    _failed: Relay | None = None
    _answered: Relay | None = None
    _over = False

    def __init__(
        self, forwarder: Forwarder, exchange: Exchange, call: Call, refuse: Refuse
    ) -> None:
        self._forwarder = forwarder
        self._exchange = exchange
        self._call = call
        self._refuse = refuse
        self._tried: list[Service] = []

    # -- a slot --------------------------------------------------------------------------------

    def go(self) -> None:
        """Ask the best service that has not failed this call."""
        try:
            lease = self._forwarder.fleet.take(self._call.model, self._tried)
        except Overloaded:
            self._exchange.spawn(self._wait())
        except RouterError as error:
            self._give_up(error)
        else:
            self._attempt(lease)

    async def _wait(self) -> None:
        """Wait in line for a slot."""
        call = self._call
        limits = self._forwarder.limits()
        before = monotonic()
        deadline = before + limits.queue_timeout_s
        ticket = Ticket(call.organization, call.meter.weight, call.priority, deadline, self._tried)
        try:
            lease = await self._forwarder.fleet.wait(call.model, ticket, limits.max_queue)
        except RouterError as error:
            self._give_up(error)
        else:
            call.queued_s += monotonic() - before
            if self._is_late():
                lease.release()
                self._give_up(None if self._failed is not None else _timeout(call))
            else:
                self._attempt(lease)

    def _is_late(self) -> bool:
        """Whether its time is over before it is sent, so that no engine can answer in time."""
        return monotonic() - self._call.started > self._call.limits.request_timeout_s

    # -- an attempt ----------------------------------------------------------------------------

    def _attempt(self, lease: Lease) -> None:
        """Send the call, over a connection that is there or a new one."""
        if self._forwarder.is_over:
            lease.release()
            self._give_up(_draining())
            return
        if self._failed is not None and not self._may_move(self._failed):
            lease.release()
            self._give_up(None)
            return
        self._lease = lease
        relay = self._relay = Relay(
            self._exchange,
            self._call,
            lease,
            may_move=len(self._tried) < MAX_MOVES,
            ended=self._ended,
        )
        self._forwarder.running.add(relay)
        pool = self._forwarder.upstreams.pool(lease.service.spec.url)
        connection = pool.take_idle()
        if connection is not None:
            relay.send(connection, self._head(pool, lease.service))
        else:
            self._exchange.spawn(self._connect(relay, pool))

    def _may_move(self, failed: Relay) -> bool:
        if not self._forwarder.budget.take(monotonic()):
            return False
        failed.service.cells.retries[failed.fault or "error"] += 1
        return True

    async def _connect(self, relay: Relay, pool: UpstreamPool) -> None:
        before = monotonic()
        try:
            connection = await pool.connect()
        except ConnectFailed as error:
            relay.on_broken(error)
            return
        self._call.connected_s += monotonic() - before
        if relay.outcome is None:
            relay.send(connection, self._head(pool, relay.service))
        else:  # ended by the sweep or by a shutdown while it was connecting
            connection.abort()

    def _head(self, pool: UpstreamPool, service: Service) -> bytes:
        call = self._call
        start = pool.start_of(call.path.upstream, service.spec.api_key)
        return request_head(start, call.lines, len(call.body), call.request_id)

    # -- an outcome ----------------------------------------------------------------------------

    def _ended(self, relay: Relay) -> None:
        """The attempt has its outcome: conclude, or go on."""
        if relay.outcome is Outcome.STALE:
            relay.rearm()
            pool = self._forwarder.upstreams.pool(relay.service.spec.url)
            self._exchange.spawn(self._connect(relay, pool))
            return
        self._finish(relay)
        self._go_on_from(relay)
        self._forwarder.account.attempt(relay, self._call)

    def _go_on_from(self, relay: Relay) -> None:
        outcome = relay.outcome
        if outcome is Outcome.FAILED:
            self._failed = relay
            if relay.held is not None:
                self._answered = relay
            self._tried.append(relay.service)
            if len(self._tried) <= MAX_MOVES and not self._is_late():
                self.go()
            else:
                self._give_up(None)
        elif relay.first_byte:
            self._settle(relay)
        elif outcome is Outcome.TIMEOUT:
            self._give_up(_timeout(self._call))
        elif outcome is Outcome.SHUT_DOWN:
            self._give_up(_draining())
        else:
            self._settle(None)

    def _finish(self, relay: Relay) -> None:
        """Give back what the attempt took. Once an attempt; does not await."""
        forwarder = self._forwarder
        forwarder.running.discard(relay)
        self._relay = None
        lease, self._lease = self._lease, None
        if lease is not None:
            if relay.fault is not None:
                forwarder.fault(relay, lease, self._call)
            lease.release()

    def _give_up(self, error: RouterError | None) -> None:
        """No attempt is left: pass on the last answer that an engine gave, or say why not."""
        answered = self._answered
        failed = self._failed
        if isinstance(error, GatewayTimeout | Draining) or failed is None:
            assert error is not None
            self._conclude(error)
        elif answered is not None:
            self._settle(answered)
            answered.answer_held()
            if answered.counted:
                self._forwarder.account.late(answered, self._call)
        else:
            self._conclude(BadGateway(f"No service could answer: {failed.reason}."))

    def _conclude(self, error: RouterError) -> None:
        self._settle(None)
        self._refuse(self._exchange, error, self._call.organization)

    def _settle(self, relay: Relay | None) -> None:
        """Charge the answer that the client got, or nothing."""
        if not self._over:
            self._over = True
            self._exchange.journey = None
            self._call.meter.close(relay)

    def client_gone(self) -> bool:
        """Give everything back; whether a service had been asked."""
        relay = self._relay
        if relay is not None:
            relay.abandon()
        self._settle(None)
        return relay is not None


def _timeout(call: Call) -> GatewayTimeout:
    return GatewayTimeout(f"No engine sent anything within {call.limits.request_timeout_s:g} s.")


def _draining() -> Draining:
    return Draining("The router is shutting down.", retry_after_s=1)
