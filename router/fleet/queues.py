"""The queues: who waits for a slot of which model, and how each wait ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic

from router.errors import Overloaded, RouterError
from router.fleet.lease import Lease
from router.fleet.refusal import nobody, retry_after
from router.fleet.service import Service
from router.fleet.waiting import Ticket, WaitingRoom


class Queues:
    """A waiting room for each model that somebody waits for.

    Args:
        take: leases a slot of a model, but of none of the services given; raises RouterError.
        members: services of a model, whatever their health.

    Attributes:
        rooms: model -> who waits for it, one mapping for good; to others for looking alone. A
            room is there as long as somebody is in it.
    """

    def __init__(
        self,
        take: Callable[[str, Collection[Service]], Lease],
        members: Callable[[str], Sequence[Service]],
    ) -> None:
        self._take = take
        self._members = members
        self.rooms: dict[str, WaitingRoom] = {}

    async def wait(self, model: str, ticket: Ticket, max_queue: int) -> Lease:
        """Wait for a slot, see `Fleet.wait`."""
        room = self.rooms.get(model) or WaitingRoom()
        if len(room) >= max_queue:
            raise self.overloaded(model, f"{max_queue} requests wait for it already.")
        self.rooms[model] = room
        room.join(ticket)
        self.serve()  # a slot may be free that is of no use to those ahead
        try:
            return await ticket.lease
        except asyncio.CancelledError:
            ticket.give_up()
            raise
        finally:
            room.leave(ticket)
            self._close_empty(model)

    def serve(self) -> None:
        """Hand free slots to whoever is next, model by model."""
        for model, room in tuple(self.rooms.items()):
            members = self._members(model)
            _refuse_stranded(model, room, members)
            while _has_news(members) and room.serve(partial(self._give, model)):
                pass
            self._close_empty(model)

    def refuse_late(self, now: float) -> None:
        """End the waits whose deadline is over; `now` in monotonic seconds."""
        for model, room in tuple(self.rooms.items()):
            for ticket in room.late(now):
                room.leave(ticket)
                _fail(ticket, self.overloaded(model, "It waited too long for a slot."))
            self._close_empty(model)

    def refuse_all(self, why: Callable[[], RouterError]) -> None:
        """End every wait with an error made by `why`."""
        for model, room in tuple(self.rooms.items()):
            for ticket in room.late(math.inf):
                room.leave(ticket)
                _fail(ticket, why())
            self._close_empty(model)

    def overloaded(self, model: str, why: str) -> Overloaded:
        """The error of who gets no slot of `model` now, with the time after which to ask again."""
        waiting = len(self.rooms.get(model, ()))
        return Overloaded(
            f"`{model}` is overloaded. {why}",
            retry_after_s=retry_after(self._members(model), waiting, monotonic()),
        )

    def _give(self, model: str, ticket: Ticket) -> bool:
        if ticket.lease.done():  # its client is gone
            return True
        try:
            ticket.lease.set_result(self._take(model, ticket.exclude))
        except Overloaded:
            return False
        except RouterError as error:
            _fail(ticket, error)
        return True

    def _close_empty(self, model: str) -> None:
        room = self.rooms.get(model)
        if room is not None and not len(room):
            del self.rooms[model]


def _has_news(members: Sequence[Service]) -> bool:
    """Whether there is news for those who wait: a free slot, or nobody left to wait for."""
    usable = [each for each in members if each.usable]
    return not usable or any(not each.is_full for each in usable)


def _refuse_stranded(model: str, room: WaitingRoom, members: Sequence[Service]) -> None:
    """End the waits of those for whom nobody is left, whoever else is well: they failed there."""
    for ticket in tuple(room.choosy):
        if all(each in ticket.exclude for each in members if each.usable):
            room.leave(ticket)
            _fail(ticket, nobody(model, members, ticket.exclude))


def _fail(ticket: Ticket, error: RouterError) -> None:
    if not ticket.lease.done():
        ticket.lease.set_exception(error)
