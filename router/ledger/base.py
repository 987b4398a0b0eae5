"""The interface that every store of usage implements, whatever is behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from router.ledger.accounts import Reservation
from router.ledger.values import Limits, Refusal, Tightest, WindowUsage
from router.model import Usage


class Ledger(ABC):
    """Who has used how much, and who may have more. One thread, the event loop's, calls it.

    Nothing that decides awaits. A store that is elsewhere fetches budget ahead of need in `run`
    and decides within what it holds.

    A reservation belongs to the windows in which it was made: a request that begins before midnight
    is charged to the day it began in, whenever it ends. So what was reserved and what is charged
    are always in the same window, and no window is entered by a request that it did not admit.

    Times are seconds since the epoch.
    """

    @abstractmethod
    def reserve(
        self,
        organization: str,
        prompt_tokens: int,
        completion_tokens: int,
        now: float,
        clamp_to: int = 1,
    ) -> Reservation | Refusal:
        """Hold what a request may cost, in every window or in none.

        Args:
            organization: who pays. One without limits, or unknown so far, is counted all the same.
            prompt_tokens: upper bound of the prompt.
            completion_tokens: the most the answer may have, 0 for one without tokens.
            now: decides the windows.
            clamp_to: where less is left than asked for, the answer's part is lowered, but not
                below this (nor below 1).
        """

    @abstractmethod
    def settle(self, reservation: Reservation, usage: Usage | None) -> bool:
        """End a reservation by charging one request and the tokens of `usage`.

        Args:
            reservation: what `reserve` gave.
            usage: what the exchange did cost, charged even where it is more than was held (an
                overrun, counted). None: the last progress.

        Returns:
            Whether this call ended it; false, and nothing charged, if it had ended before. What
            `expire` has ended counts as open: this is charged in place of the last progress.
        """

    @abstractmethod
    def release(self, reservation: Reservation) -> bool:
        """End a reservation without a charge, the request's own included.

        Returns:
            Whether this call ended it; false if it had ended before, as for `settle`.
        """

    @abstractmethod
    def configure(self, limits: Mapping[str, Limits]) -> None:
        """Replace all limits; organizations that are left out have none from now on."""

    @abstractmethod
    def windows(self, organization: str, now: float) -> list[WindowUsage]:
        """Tokens a day, tokens a month, requests a day, as they are now."""

    @abstractmethod
    def tightest(self, organization: str, now: float) -> Tightest:
        """What the `x-ratelimit-*` headers tell."""

    @abstractmethod
    def organizations(self) -> list[str]:
        """Who has been counted, or has limits."""

    @abstractmethod
    def open_count(self) -> int:
        """How many reservations are neither settled nor released."""

    @abstractmethod
    def reserved_total(self, organization: str) -> int:
        """Tokens that an organization's open reservations hold, of whatever window."""

    @abstractmethod
    def discrepancies(self) -> list[str]:
        """Where `reserved` is not the sum of open reservations; empty unless there is a bug."""

    @abstractmethod
    def expire(self, periods: int) -> int:
        """Settle, at the last progress, what has not moved for so many periods; returns how many.

        Whoever reserves also ends, and moves it meanwhile (`Reservation.progress`, `touch`); this
        mends what a bug leaked. A period is the time between two calls of this.
        """

    @property
    @abstractmethod
    def overruns(self) -> int:
        """How many were settled for more tokens than they held."""

    @abstractmethod
    async def start(self, now: float) -> None:
        """Take over what an earlier process left."""

    @abstractmethod
    async def run(self) -> None:
        """What goes on in the background, until it is cancelled."""

    @abstractmethod
    async def close(self, now: float) -> bool:
        """Leave everything where the next process finds it.

        Returns:
            Whether nothing is left that this ledger alone knows; what it has handed to a store that
            does not answer is the store's to tell.
        """
