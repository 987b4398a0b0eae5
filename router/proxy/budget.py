"""How much failover an outage may cost: extra load is bounded, so that it brings no storm."""

from __future__ import annotations

_SLOTS = 10
_SHARE = 0.2
_ALWAYS = 10


class MoveBudget:
    """Allows moves up to 20 % of the requests of the last 10 s, and 10 in any case.

    Requests are counted at once and filed under their second when somebody looks, at the latest
    when the sweep comes by.
    """

    __slots__ = ("_moves", "_new", "_requests", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._new = 0
        self._requests = [0] * _SLOTS
        self._moves = [0] * _SLOTS

    def note_request(self) -> None:
        """A request has come."""
        self._new += 1

    def take(self, now: float) -> bool:
        """Whether one more move is within the budget; it is counted if so. Monotonic seconds."""
        self.roll(now)
        if sum(self._moves) >= max(_ALWAYS, _SHARE * sum(self._requests)):
            return False
        self._moves[self._second % _SLOTS] += 1
        return True

    def roll(self, now: float) -> None:
        """Let time pass: file what is new, forget what is older than 10 s."""
        second = int(now)
        for passed in range(max(self._second + 1, second - _SLOTS + 1), second + 1):
            self._requests[passed % _SLOTS] = 0
            self._moves[passed % _SLOTS] = 0
        self._second = max(second, self._second)
        self._requests[self._second % _SLOTS] += self._new
        self._new = 0
