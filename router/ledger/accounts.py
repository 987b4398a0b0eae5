"""The mutable half of a ledger: an organization's counters and what is held of them.

Everything here belongs to one ledger and is changed by it alone, on one thread.
"""

from __future__ import annotations

import msgspec

from router.ledger.values import Kind, Limits, WindowUsage
from router.ledger.windows import Period, Window, day_of, month_of

# One comparison instead of two in the hot path: no sum of tokens comes near it.
NO_LIMIT = 1 << 62

# A clock that is set back finds its windows again; three days and their months.
_KEPT_COUNTERS = 9


class Counter:
    """What an organization has used of one kind in one window, as of the last `WindowSet.fold`.

    Attributes:
        limit: the most it may use, or `NO_LIMIT`.
        used: what is settled.
        left: what a new request may take; negative after an overrun or a lowered limit.
        open: of what is reserved, the part that was used already when last looked at.
        stored: what a store that persists tells of as reserved; kept by the ledger that has one.
    """

    __slots__ = (
        "end",
        "kind",
        "left",
        "limit",
        "open",
        "organization",
        "period",
        "start",
        "stored",
        "used",
    )

    def __init__(self, organization: str, kind: Kind, window: Window, limit: int) -> None:
        self.organization = organization
        self.kind = kind
        self.period = window.period
        self.start = window.start
        self.end = window.end
        self.limit = limit
        self.used = 0
        self.left = limit
        self.open = 0
        self.stored = 0

    @property
    def reserved(self) -> int:
        """The sum of what open reservations hold."""
        return self.limit - self.used - self.left

    def apply(self, limit: int) -> None:
        """Let another limit hold from now on."""
        self.left += limit - self.limit
        self.limit = limit

    def __repr__(self) -> str:
        return f"<Counter {self.organization!r} {self.kind} a {self.period} from {self.start}>"

    def usage(self) -> WindowUsage:
        """The present state, for telling."""
        limited = self.limit != NO_LIMIT
        return WindowUsage(
            self.kind,
            self.period,
            self.limit if limited else None,
            self.used,
            self.reserved,
            max(0, self.left) if limited else None,
            self.end,
        )


class WindowSet:
    """The counters in force at one time, and what requests change of them.

    While a set is in force, what is taken of the day's tokens is taken of the month's, so which of
    them has the least left stays the same. A request therefore changes plain numbers here, and
    `fold` brings the counters up to date for whoever looks at them.

    Attributes:
        start, end: from when until when it is in force, in seconds since the epoch.
        in_force: it is the account's current one; if not, every change is folded at once, for a
            later set may have counters in common with it.
        left_tokens: what a new request may take of the tightest window of tokens; this and what
            follows hold while it is in force.
        left_requests: the same of the day's requests.
        used_tokens, used_requests: settled since the last fold.
        tightest: of the windows of tokens, the one with the least left.
        form: for whoever tells clients of these windows, to be filled with the two numbers that
            are left; it holds until `form_until`, monotonic seconds. A fold forgets it.
        quiet: nobody need be told of a change: it is in force, and a ledger that persists knows of
            one since it looked.
    """

    __slots__ = (
        "_left_requests_before", "_left_tokens_before", "day_requests", "day_tokens", "end", "form",
        "form_until", "in_force", "left_requests", "left_tokens", "month_tokens", "quiet", "start",
        "tightest", "used_requests", "used_tokens",
    )  # fmt: skip

    def __init__(self, day_tokens: Counter, month_tokens: Counter, day_requests: Counter) -> None:
        self.day_tokens = day_tokens
        self.month_tokens = month_tokens
        self.day_requests = day_requests
        # A month ends with a day: the day's bounds are the set's.
        self.start = float(day_tokens.start)
        self.end = float(day_tokens.end)
        self.in_force = True
        self.quiet = False
        self.form = b""
        self.used_tokens = self.used_requests = 0
        self._look()

    def _look(self) -> None:
        """See what the counters have left."""
        day, month = self.day_tokens, self.month_tokens
        self.tightest = month if month.left < day.left else day
        self.left_tokens = self._left_tokens_before = self.tightest.left
        self.left_requests = self._left_requests_before = self.day_requests.left
        self.form_until = 0.0

    def fold(self) -> None:
        """Bring the counters up to date, and what is left with them."""
        for each in (self.day_tokens, self.month_tokens):
            each.used += self.used_tokens
            each.left += self.left_tokens - self._left_tokens_before
        self.day_requests.used += self.used_requests
        self.day_requests.left += self.left_requests - self._left_requests_before
        self.used_tokens = self.used_requests = 0
        self._look()

    @property
    def limits_tokens(self) -> bool:
        """Whether there is any limit on tokens."""
        return self.day_tokens.limit != NO_LIMIT or self.month_tokens.limit != NO_LIMIT

    def counters(self) -> tuple[Counter, Counter, Counter]:
        """All three, up to date, in the order in which they are told."""
        self.fold()
        return self.day_tokens, self.month_tokens, self.day_requests


class Reservation(msgspec.Struct, eq=False, gc=False):
    """What one request holds, in the windows in which it was made, until it is settled or released.

    Attributes:
        windows: see above.
        held: tokens in all.
        prompt_tokens: of these, held for the prompt.
        clamped: whether that is less than was asked for.
        seen_prompt_tokens: last usage seen, see `progress`.
        seen_completion_tokens: last usage seen, see `progress`.
        checkpointed: of that, what its windows count as open.
        still: searches for what was leaked that have found it since it last moved. They are counted
            rather than timed: no clock that is set, and no process that stood still, makes a leak
            of what moves between two of them.
        leaked: tokens that were charged when it seemed leaked; None: it never did.
    """

    windows: WindowSet
    held: int
    prompt_tokens: int
    clamped: bool
    seen_prompt_tokens: int = 0
    seen_completion_tokens: int = 0
    checkpointed: int = 0
    still: int = 0
    leaked: int | None = None

    @property
    def granted_completion_tokens(self) -> int:
        """Held for the answer; it must not be let run past this."""
        return self.held - self.prompt_tokens

    @property
    def organization(self) -> str:
        """Who pays."""
        return self.windows.day_tokens.organization

    def progress(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Note the last usage seen: totals so far, charged if nothing better is ever known."""
        self.still = 0
        self.seen_prompt_tokens = prompt_tokens
        self.seen_completion_tokens = completion_tokens

    def touch(self) -> None:
        """Note that whoever holds it is alive."""
        self.still = 0

    def __repr__(self) -> str:
        return (
            f"<Reservation organization={self.organization!r},"
            f" prompt_tokens={self.prompt_tokens},"
            f" granted_completion_tokens={self.granted_completion_tokens},"
            f" seen={self.seen_prompt_tokens}+{self.seen_completion_tokens}>"
        )


class Account:
    """One organization's counters.

    Args:
        organization: its id.
        limits: what it may use.
        now: seconds since the epoch.
    """

    __slots__ = ("_counters", "current", "limits", "organization")

    def __init__(self, organization: str, limits: Limits, now: float) -> None:
        self.organization = organization
        self.limits = limits
        self._counters: dict[tuple[Kind, Period, int], Counter] = {}
        self.current = self._windows(now)

    def at(self, now: float) -> WindowSet:
        """The counters in force at a time."""
        current = self.current
        return current if current.start <= now < current.end else self.roll(now)

    def roll(self, now: float) -> WindowSet:
        """Make the windows of a time the current ones, with the counters they had, if any."""
        old = self.current
        old.fold()
        old.in_force = old.quiet = False
        self.current = self._windows(now)
        self._forget_old()
        return self.current

    def _windows(self, now: float) -> WindowSet:
        day, month = day_of(now), month_of(now)
        return WindowSet(
            self._counter(Kind.TOKENS, day),
            self._counter(Kind.TOKENS, month),
            self._counter(Kind.REQUESTS, day),
        )

    def fold(self, old: WindowSet) -> None:
        """Bring all counters up to date after a change of windows that are no longer in force."""
        old.fold()
        self.current.fold()

    def use(self, kind: Kind, window: Window, used: int, held: int = 0) -> None:
        """Count what was used, or is held, without a reservation: by another process."""
        counter = self._counter(kind, window)
        counter.used += used
        counter.left -= used + held
        self.current.fold()

    def _counter(self, kind: Kind, window: Window) -> Counter:
        """The counter of a window, made if need be; it is the last to be forgotten."""
        key = kind, window.period, window.start
        found = self._counters.pop(key, None)
        if found is None:
            found = Counter(
                self.organization, kind, window, _limit(self.limits, kind, window.period)
            )
        self._counters[key] = found
        return found

    def counters(self) -> list[Counter]:
        """Every counter that is kept, up to date."""
        self.current.fold()
        return list(self._counters.values())

    def daily_tokens(self) -> list[Counter]:
        """Tokens by day: each reservation is in one of them."""
        return [
            each
            for each in self.counters()
            if each.kind is Kind.TOKENS and each.period is Period.DAY
        ]

    def apply(self, limits: Limits) -> None:
        """Let other limits hold from now on; what is used and reserved stays."""
        self.limits = limits
        for each in self._counters.values():
            each.apply(_limit(limits, each.kind, each.period))
        self.current.fold()

    def _forget_old(self) -> None:
        in_force = self.current.counters()
        for key, each in list(self._counters.items()):
            if len(self._counters) <= _KEPT_COUNTERS:
                return
            if not each.reserved and each not in in_force:
                del self._counters[key]


def _limit(limits: Limits, kind: Kind, period: Period) -> int:
    if kind is Kind.REQUESTS:
        limit = limits.daily_requests
    elif period is Period.DAY:
        limit = limits.daily_tokens
    else:
        limit = limits.monthly_tokens
    return NO_LIMIT if limit is None else limit
