"""Who waits for a slot of a model, and who is next: fair between organizations.

Deficit round robin (Shreedhar and Varghese, 1995) over the organizations, weighed by the tokens
their requests may cost; within one organization first come, first served. A higher priority goes
before all lower ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection

from router.fleet.lease import Lease
from router.fleet.service import Service

QUANTUM_TOKENS = 4096
_MAX_COST = 16 * QUANTUM_TOKENS


class Ticket:
    """A request that waits.

    Attributes:
        organization: whose turn it takes; the anonymous are one organization.
        cost: tokens that the request may cost.
        priority: higher goes first.
        deadline: when it has waited long enough, monotonic seconds.
        exclude: services it must not be given to.
        lease: resolved with the slot, or with the error that ends the wait.
    """

    __slots__ = ("cost", "deadline", "exclude", "lease", "organization", "priority")

    def __init__(
        self,
        organization: str,
        cost: int,
        priority: int,
        deadline: float,
        exclude: Collection[Service],
    ) -> None:
        self.organization = organization
        self.cost = max(1, min(cost, _MAX_COST))
        self.priority = priority
        self.deadline = deadline
        self.exclude = exclude
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def give_up(self) -> None:
        """The client is gone; a slot that came at the same moment goes back."""
        lease = self.lease
        if lease.done() and not lease.cancelled() and lease.exception() is None:
            lease.result().release()


class _Turns:
    """Deficit round robin among the organizations of one priority."""

    def __init__(self) -> None:
        self.lines: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._deficits: dict[str, int] = {}

    def add(self, ticket: Ticket) -> None:
        line = self.lines.get(ticket.organization)
        if line is None:
            line = self.lines[ticket.organization] = deque()
            self._deficits[ticket.organization] = 0
        line.append(ticket)

    def remove(self, ticket: Ticket) -> None:
        line = self.lines[ticket.organization]
        line.remove(ticket)
        if not line:
            # Deficits are for those that wait: idle ones save nothing up.
            del self.lines[ticket.organization]
            del self._deficits[ticket.organization]

    def serve(self, give: Callable[[Ticket], bool]) -> Ticket | None:
        """Give the next one that can be given a slot; it is removed and returned.

        Where nobody can be given one, nothing changes: turns and deficits are for those served.
        """
        order, deficits = list(self.lines), dict(self._deficits)
        # No larger than whoever is first needs: a turn must not be many small requests.
        quantum = max((line[0].cost for line in self.lines.values()), default=1)
        quantum = min(quantum, QUANTUM_TOKENS)
        stuck: set[str] = set()
        while len(stuck) < len(self.lines):
            organization, line = next(iter(self.lines.items()))
            if organization in stuck:
                self.lines.move_to_end(organization)
            elif self._deficits[organization] < line[0].cost:
                self._deficits[organization] += quantum
                self.lines.move_to_end(organization)
            else:
                ticket = _first_given(line, give)
                if ticket is not None:
                    self._deficits[organization] -= ticket.cost
                    self.remove(ticket)
                    return ticket
                stuck.add(organization)
        self.lines = OrderedDict((organization, self.lines[organization]) for organization in order)
        self._deficits = deficits
        return None


def _first_given(line: deque[Ticket], give: Callable[[Ticket], bool]) -> Ticket | None:
    """The first of a line that a free slot is of use to.

    One that must not go where a slot is free lets others pass, up to the first that may go
    anywhere.
    """
    for ticket in line:
        if give(ticket):
            return ticket
        if not ticket.exclude:
            return None
    return None


class WaitingRoom:
    """Everybody who waits for one model.

    Attributes:
        choosy: those that must not be given to every service; for others to look at alone.
    """

    def __init__(self) -> None:
        self.choosy: dict[Ticket, None] = {}
        self._turns: dict[int, _Turns] = {}
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, ticket: Ticket) -> None:
        """Take a place."""
        self._tickets[ticket] = None
        if ticket.exclude:
            self.choosy[ticket] = None
        turns = self._turns.get(ticket.priority)
        if turns is None:
            turns = self._turns[ticket.priority] = _Turns()
        turns.add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give the place up, if it is still held."""
        if ticket in self._tickets:
            self._turns[ticket.priority].remove(ticket)
            self._forget(ticket)

    def serve(self, give: Callable[[Ticket], bool]) -> bool:
        """Have `give` try to hand a slot to whoever is next; False when nobody could be given one.

        `give` returns False where the slots that are free are of no use to a ticket.
        """
        for priority in sorted(self._turns, reverse=True):
            ticket = self._turns[priority].serve(give)
            if ticket is not None:
                self._forget(ticket)
                return True
        return False

    def late(self, now: float) -> list[Ticket]:
        """Those whose deadline is over."""
        return [ticket for ticket in self._tickets if ticket.deadline <= now]

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket]
        self.choosy.pop(ticket, None)
        if not self._turns[ticket.priority].lines:
            del self._turns[ticket.priority]
