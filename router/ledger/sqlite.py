"""The ledger that outlives its process: memory decides, the disk follows within 100 ms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from router.ledger.accounts import Account, Counter, WindowSet
from router.ledger.memory import LEAK_SEARCH_S, LEAKED_AFTER, MemoryLedger
from router.ledger.values import Kind, Limits, WindowUsage
from router.ledger.windows import Period, Window
from router.storage import (
    BacklogFull,
    Database,
    Recovery,
    StorageError,
    StoredWindow,
    UsageTable,
)

# A burst within this time is one row; the rest of the 100 ms is the disk's.
_GATHER_S = 0.07
# With the gathering and the disk's time well within the second that a crash may cost.
_CHECKPOINT_S = 0.5
_KEEP_S = 400 * 86_400.0
# A clock that is set back after a start finds what was used.
_LOOK_BACK_S = 2 * 86_400.0
_PATIENCE_S = 5.0


class SqliteLedger(MemoryLedger):
    """Decides in memory; what is settled is on disk within 100 ms, what is open within a second.

    While the disk is at fault it goes on in memory and catches up afterwards. If the file cannot
    even be read at the start, the usage in it is added as soon as it can.

    Args:
        database: where usage is kept; its owner closes it, after this ledger.
        limits: by organization.
        clock: seconds since the epoch, for what goes on in the background.
    """

    def __init__(
        self,
        database: Database,
        limits: Mapping[str, Limits],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(limits)
        self._clock = clock
        self._database = database
        self._usage = UsageTable(database)
        self._unsaved: set[WindowSet] = set()
        # Whose reserved part the disk tells otherwise, as of the last checkpoint; and who may have
        # had something reserved when a row was last written, so that its end must be told, too.
        self._mistold: set[Counter] = set()
        self._holding: set[Account] = set()
        self._woken = asyncio.Event()
        self._recovery: Recovery | None = None
        self._recovered = False
        self._generation = 0

    async def start(self, now: float) -> None:
        """Read what an earlier process left, and settle what it had open at its last checkpoint.

        Waits a few seconds for a disk at fault, then goes on without it.
        """
        recovery = self.recover(now)
        await asyncio.to_thread(recovery.wait, _PATIENCE_S)
        if not self._adopt(now):
            self._log.error(
                "ledger_unread",
                error=self._database.status().last_error,
                consequence="usage from before this start counts once the file can be read",
            )

    async def run(self) -> None:
        """Keep the disk up to date, and mend what was leaked."""
        checkpoint_at = leaks_at = 0.0
        while True:
            await self._sleep(checkpoint_at - time.monotonic())
            now = self._clock()
            elapsed = time.monotonic()
            if elapsed >= checkpoint_at:
                checkpoint_at = elapsed + _CHECKPOINT_S
                self.checkpoint()
            if elapsed >= leaks_at:
                leaks_at = elapsed + LEAK_SEARCH_S
                self.expire(LEAKED_AFTER)
            self.flush(now)

    async def close(self, now: float) -> bool:
        """Bring everything to disk, open reservations too: the next start settles those.

        Waits a few seconds for a disk at fault; the database tries once more when it is closed.
        """
        self.checkpoint()
        deadline = time.monotonic() + _PATIENCE_S
        with suppress(TimeoutError, BacklogFull, StorageError):
            # What counts from before decides what is written: nothing is before that is known.
            recovery = self._recovery or self.recover(now)
            if await asyncio.to_thread(recovery.wait, _PATIENCE_S):
                self.flush(now)
                written = self._database.flushed()
                await asyncio.to_thread(written.result, deadline - time.monotonic())
        return not self._unsaved

    def recover(self, now: float) -> Recovery:
        """Begin to read what an earlier process left; `flush` takes it over once it is there."""
        self._recovery = self._usage.recover(since=now - _LOOK_BACK_S, keep_since=now - _KEEP_S)
        return self._recovery

    def flush(self, now: float) -> None:
        """Hand what is new to the writer; does not wait for the disk."""
        self._woken.clear()
        try:
            if self._adopt(now):
                self._put_unsaved()
        except BacklogFull as error:
            # The set keeps what it has, and is no larger than the windows there are.
            self._log.error("ledger_backlog_full", error=str(error))

    def checkpoint(self) -> None:
        """Look at every open reservation, and at what is reserved where the disk tells otherwise.

        Here alone, and not where something is reserved: that is on the way of every request.
        """
        super().checkpoint()
        self._holding.update(self._accounts[each.organization] for each in self._open)
        self._mistold.clear()
        for account in list(self._holding):
            counters = account.counters()
            mistold = [each for each in counters if each.reserved != each.stored]
            self._mistold.update(mistold)
            if not mistold and not any(each.stored for each in counters):
                self._holding.discard(account)

    def _changed(self, windows: WindowSet) -> None:
        windows.quiet = windows.in_force
        self._unsaved.add(windows)
        self._woken.set()

    async def _sleep(self, longest_s: float) -> None:
        """Until the next checkpoint, or shortly after something was settled."""
        try:
            async with asyncio.timeout(max(0.0, longest_s)):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_GATHER_S)

    def _put_unsaved(self) -> None:
        generation = self._database.generation
        if generation != self._generation:
            # A new file knows nothing: it gets everything.
            self._put(self._all_counters())
        elif self._unsaved or self._mistold:
            counters = {each for windows in self._unsaved for each in windows.counters()}
            self._put(counters | self._mistold)
        for windows in self._unsaved:
            windows.quiet = False
        self._unsaved.clear()
        self._mistold.clear()
        self._generation = generation

    def _put(self, counters: Collection[Counter]) -> None:
        self._usage.put(map(_stored, counters))
        for each in counters:
            each.stored = each.reserved
            if each.stored:
                self._holding.add(self._accounts[each.organization])

    def _all_counters(self) -> list[Counter]:
        return [each for account in self._accounts.values() for each in account.counters()]

    # -- what an earlier process left ----------------------------------------------------------

    def _adopt(self, now: float) -> bool:
        """Whether usage from before is known; takes it over as soon as it is there."""
        if self._recovered:
            return True
        recovery = self._recovery or self.recover(now)
        if not recovery.done():
            return False
        self._recovered = True
        for row in recovery.windows():
            account = self._accounts.get(row.organization)
            _add(account or self._new_account(row.organization, now), row)
        self._tell_settled(recovery.left_open())
        return True

    def _tell_settled(self, left_open: list[StoredWindow]) -> None:
        daily = [each for each in left_open if each.period == Period.DAY]
        if daily:
            self._log.warning(
                "ledger_recovered",
                reason="the last process ended with open reservations",
                requests=sum(each.open for each in daily if each.kind == Kind.REQUESTS),
                tokens=sum(each.open for each in daily if each.kind == Kind.TOKENS),
            )


def stored_usage(
    database: Database, limits: Mapping[str, Limits], now: float
) -> dict[str, list[WindowUsage]]:
    """Every organization's windows from disk alone, for commands beside a daemon. Blocks.

    What is reserved is the last checkpoint's; after a crash it is told until the next start.

    Raises:
        StorageError: the file cannot be read now.
    """
    accounts = {name: Account(name, each, now) for name, each in limits.items()}
    for row in UsageTable(database).in_force(now):
        if row.organization not in accounts:
            accounts[row.organization] = Account(row.organization, Limits(), now)
        _add(accounts[row.organization], row, held=row.reserved)
    return {
        name: [each.usage() for each in account.at(now).counters()]
        for name, account in sorted(accounts.items())
    }


def _add(account: Account, row: StoredWindow, held: int = 0) -> None:
    window = Window(Period(row.period), row.period_start, row.period_end)
    account.use(Kind(row.kind), window, row.used, held)


def _stored(counter: Counter) -> StoredWindow:
    return StoredWindow(
        counter.organization,
        counter.kind,
        counter.period,
        counter.start,
        counter.end,
        counter.used,
        counter.open,
        max(0, counter.reserved),
    )
