"""From an admitted call to its answer: attempts, failover, and where all is given back.

What moves: a call whose engine refused, broke or answered 5xx before the first byte of its body
went to the client. Inference has no side effects, so an engine that may have begun is no obstacle.
After that byte nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.config.settings import Settings
from router.errors import BadGateway, Draining, GatewayTimeout, RouterError
from router.fleet.fleet import Fleet, Lease
from router.fleet.service import Service
from router.log import get_logger
from router.proxy.account import count
from router.proxy.exchange import Call, Exchange
from router.proxy.relay import Outcome, Relay
from router.proxy.upstream import ConnectFailed, Upstreams, request_head

_log = get_logger("router.proxy")
MAX_MOVES = 2


class Forwarder:
    """Takes calls to engines.

    Attributes:
        running: attempts under way; the sweep looks at them.
    """

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        settings: Callable[[], Settings],
        suspect: Callable[[Service], None],
    ) -> None:
        self._fleet = fleet
        self._upstreams = upstreams
        self._settings = settings
        self._suspect = suspect
        self.running: set[Relay] = set()

    async def forward(self, exchange: Exchange, call: Call) -> None:
        """Get `call` answered by a service that can.

        Raises:
            RouterError: nothing has been written, and this is the answer.
        """
        tried: list[Service] = []
        failed: Relay | None = None
        answered: Relay | None = None
        while len(tried) <= MAX_MOVES:
            try:
                lease = self._fleet.take(call.model, exclude=tried)
            except RouterError:
                if failed is None:
                    raise
                break
            relay = Relay(exchange, call, lease.service, may_move=len(tried) < MAX_MOVES)
            try:
                await self._attempt(relay, call)
            finally:
                self._finish(relay, lease, call)
            if relay.outcome is not Outcome.FAILED:
                self._conclude(relay)
                return
            failed = relay
            answered = relay if relay.held is not None else answered
            tried.append(lease.service)
            call.retries += 1
        if answered is None:
            raise BadGateway(f"No service could answer: {failed.error if failed else 'none left'}.")
        answered.answer_held()

    async def _attempt(self, relay: Relay, call: Call) -> None:
        """Send the call, over a connection that is there or a new one, and wait for an outcome."""
        spec = relay.service.spec
        pool = self._upstreams.pool(spec.url)
        head = request_head(
            call.path.upstream,
            spec,
            pool.target,
            call.lines,
            len(call.body),
            request_id=call.request_id,
        )
        connection = pool.take_idle()
        self.running.add(relay)
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
        lease.release()
        count(relay, call, monotonic())
        if relay.outcome is Outcome.FAILED:
            self._suspect(relay.service)
            _log.warning(
                "attempt_failed",
                request_id=call.request_id.decode(),
                service=relay.service.name,
                error=str(relay.error) if relay.error else f"status {relay.status}",
            )

    def _conclude(self, relay: Relay) -> None:
        """Turn an end without a byte into its error."""
        if relay.first_byte:
            return
        if relay.outcome is Outcome.TIMEOUT:
            limit = self._settings().server.request_timeout_s
            raise GatewayTimeout(f"The engine sent nothing within {limit:g} s.")
        if relay.outcome is Outcome.SHUT_DOWN:
            raise Draining("The router is shutting down.", retry_after_s=1)
