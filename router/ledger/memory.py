"""The ledger in memory: where every decision is made, also for ledgers that persist."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from router.ledger.accounts import NO_LIMIT, Account, Counter, Reservation, WindowSet
from router.ledger.base import Ledger
from router.ledger.values import Limits, Refusal, Tightest, WindowUsage
from router.log import get_logger
from router.model import NO_USAGE, Usage

# An hour in which nobody has touched it, and whoever holds it does so several times a second.
LEAKED_AFTER = 60
LEAK_SEARCH_S = 60.0
_UNLIMITED = Limits()


class MemoryLedger(Ledger):
    """Counts in dictionaries; a restart begins at zero.

    Args:
        limits: by organization.
    """

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = dict(limits)
        self._accounts: dict[str, Account] = {}
        self._open: set[Reservation] = set()
        self._overruns = 0
        self._log = get_logger("router.ledger")

    def reserve(
        self,
        organization: str,
        prompt_tokens: int,
        completion_tokens: int,
        now: float,
        clamp_to: int = 1,
    ) -> Reservation | Refusal:
        """See `Ledger.reserve`."""
        try:
            windows = self._accounts[organization].current
        except KeyError:
            windows = self._new_account(organization, now).current
        if not windows.start <= now < windows.end:
            windows = self._accounts[organization].roll(now)
        held = prompt_tokens + completion_tokens
        clamped = False
        if held > windows.left_tokens or windows.left_requests < 1:
            least = prompt_tokens + min(completion_tokens, max(1, clamp_to))
            if least > windows.left_tokens or windows.left_requests < 1:
                return _refusal(windows, least)
            held, clamped = windows.left_tokens, True
        windows.left_tokens -= held
        windows.left_requests -= 1
        reservation = Reservation(windows, held, prompt_tokens, clamped)
        self._open.add(reservation)
        return reservation

    def settle(
        self, reservation: Reservation, usage: Usage | None, *, charged: bool = True
    ) -> bool:
        """See `Ledger.settle`; `charged`: the request counts, too."""
        if usage is None:
            tokens = reservation.seen_prompt_tokens + reservation.seen_completion_tokens
        else:
            tokens = usage.prompt_tokens + usage.completion_tokens
        try:
            self._open.remove(reservation)
        except KeyError:
            if not self._reopened(reservation):
                return False
        windows, held = reservation.windows, reservation.held
        windows.left_tokens += held - tokens
        windows.used_tokens += tokens
        if charged:
            windows.used_requests += 1
        else:
            windows.left_requests += 1
        if tokens > held:
            self._overruns += 1
        if reservation.checkpointed or not windows.quiet:
            self._note_end(reservation, charged=charged)
        return True

    def release(self, reservation: Reservation) -> bool:
        """See `Ledger.release`."""
        return self.settle(reservation, NO_USAGE, charged=False)

    def configure(self, limits: Mapping[str, Limits]) -> None:
        """See `Ledger.configure`."""
        self._limits = dict(limits)
        for organization, account in self._accounts.items():
            account.apply(self._limits.get(organization, _UNLIMITED))

    def windows(self, organization: str, now: float) -> list[WindowUsage]:
        """See `Ledger.windows`."""
        return [each.usage() for each in self._look_up(organization, now).counters()]

    def tightest(self, organization: str, now: float) -> Tightest:
        """See `Ledger.tightest`."""
        windows = self._look_up(organization, now)
        windows.fold()
        tokens, requests = windows.tightest, windows.day_requests
        return Tightest(
            None if tokens.limit == NO_LIMIT else tokens.usage(),
            None if requests.limit == NO_LIMIT else requests.usage(),
        )

    def organizations(self) -> list[str]:
        """See `Ledger.organizations`."""
        return sorted(self._limits.keys() | self._accounts.keys())

    def open_count(self) -> int:
        """See `Ledger.open_count`."""
        return len(self._open)

    def reserved_total(self, organization: str) -> int:
        """See `Ledger.reserved_total`."""
        account = self._accounts.get(organization)
        if account is None:
            return 0
        return sum(each.reserved for each in account.daily_tokens())

    def discrepancies(self) -> list[str]:
        """See `Ledger.discrepancies`."""
        expected: defaultdict[Counter, int] = defaultdict(int)
        for each in self._open:
            expected[each.windows.day_tokens] += each.held
            expected[each.windows.month_tokens] += each.held
            expected[each.windows.day_requests] += 1
        kept = {each for account in self._accounts.values() for each in account.counters()}
        return [
            f"{each!r} holds {each.reserved}, its open reservations {expected[each]}"
            for each in kept | expected.keys()
            if each.reserved != expected[each]
        ]

    def checkpoint(self) -> None:
        """Look at every open reservation: what it has used so far."""
        for reservation in self._open:
            seen = reservation.seen_prompt_tokens + reservation.seen_completion_tokens
            if seen != reservation.checkpointed:
                _set_checkpoint(reservation, seen)
                self._changed(reservation.windows)

    def expire(self, periods: int) -> int:
        """See `Ledger.expire`."""
        for each in self._open:
            each.still += 1
        leaked = [each for each in self._open if each.still > periods]
        for each in leaked:
            self._log.error("reservation_leaked", reservation=repr(each))
            self.settle(each, None)
            each.leaked = each.seen_prompt_tokens + each.seen_completion_tokens
        return len(leaked)

    @property
    def overruns(self) -> int:
        """See `Ledger.overruns`."""
        return self._overruns

    async def start(self, now: float) -> None:
        """There is nothing to take over."""

    async def run(self) -> None:
        """Mend what was leaked."""
        while True:
            await asyncio.sleep(LEAK_SEARCH_S)
            self.expire(LEAKED_AFTER)

    async def close(self, now: float) -> bool:  # noqa: ARG002 - others need it
        """There is nothing to leave."""
        return True

    def _changed(self, windows: WindowSet) -> None:
        """Settled or checkpointed usage of these windows is new; for ledgers that persist.

        One that does makes windows that are in force quiet until it has looked at them.
        """

    def _note_end(self, reservation: Reservation, *, charged: bool) -> None:
        """Tell of an end to whom it is news."""
        windows = reservation.windows
        if charged or reservation.checkpointed:
            _set_checkpoint(reservation, 0)
            self._changed(windows)
        if not windows.in_force:
            self._accounts[reservation.organization].fold(windows)

    def _reopened(self, reservation: Reservation) -> bool:
        """Undo the settlement of what seemed leaked: whoever holds it ends it after all."""
        tokens, reservation.leaked = reservation.leaked, None
        if tokens is None:
            return False
        self._log.warning("reservation_ended_late", reservation=repr(reservation))
        windows, held = reservation.windows, reservation.held
        windows.left_tokens -= held - tokens
        windows.used_tokens -= tokens
        windows.used_requests -= 1
        if tokens > held:
            self._overruns -= 1
        self._changed(windows)
        return True

    def _new_account(self, organization: str, now: float) -> Account:
        limits = self._limits.get(organization, _UNLIMITED)
        account = self._accounts[organization] = Account(organization, limits, now)
        return account

    def _look_up(self, organization: str, now: float) -> WindowSet:
        """The counters in force; asking alone makes no account."""
        account = self._accounts.get(organization)
        if account is None:
            return Account(organization, self._limits.get(organization, _UNLIMITED), now).current
        return account.at(now)


def _set_checkpoint(reservation: Reservation, seen: int) -> None:
    """Count `seen` tokens of an open reservation, and its request, as used so far; 0: neither."""
    windows = reservation.windows
    more = seen - reservation.checkpointed
    windows.day_tokens.open += more
    windows.month_tokens.open += more
    windows.day_requests.open += (seen > 0) - (reservation.checkpointed > 0)
    reservation.checkpointed = seen


def _refusal(windows: WindowSet, tokens: int) -> Refusal:
    """Of the windows without room for so many tokens, or a request, tell the one to wait for."""
    short = [
        Refusal(each.kind, each.period, each.limit, each.used, each.reserved, least, each.end)
        for each, least in zip(windows.counters(), (tokens, tokens, 1), strict=True)
        if each.left < least
    ]
    return max(short, key=lambda refusal: (not refusal.is_held, refusal.resets_at))
