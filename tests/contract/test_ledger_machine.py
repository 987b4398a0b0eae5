"""Every ledger as a state machine, against an oracle that counts with plain sums."""

from __future__ import annotations

import shutil
import tempfile
from calendar import monthrange
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from ledger_stores import MemoryStore, SqliteStore, Store

from router.ledger import Limits, Refusal, Reservation
from router.model import Usage

ORGANIZATIONS = ("acme", "beta")
STEP_BACK_S = 3_600
Key = tuple[str, str, str]

limits = st.builds(
    Limits,
    daily_tokens=st.none() | st.integers(0, 300),
    monthly_tokens=st.none() | st.integers(0, 900),
    daily_requests=st.none() | st.integers(0, 6),
)
organizations = st.sampled_from(ORGANIZATIONS)
tokens = st.integers(0, 120)


def keys_of(organization: str, now: float) -> tuple[Key, Key, Key]:
    """Names of the windows of a time: tokens a day, tokens a month, requests a day."""
    moment = datetime.fromtimestamp(now, UTC)
    day, month = f"{moment:%Y-%m-%d}", f"{moment:%Y-%m}"
    return (organization, "tokens", day), (organization, "tokens", month), (organization, "n", day)


@dataclass(eq=False)
class Held:
    """The oracle's picture of an open reservation."""

    reservation: Reservation
    keys: tuple[Key, Key, Key]
    tokens: int
    seen: int = 0
    looked_at: int = 0
    still: int = 0
    finished: bool = False

    def costs(self, amount: int) -> Counter[Key]:
        return Counter(dict(zip(self.keys, (amount, amount, 1), strict=True)))


@dataclass
class Oracle:
    """What a ledger must know."""

    limits: dict[str, Limits]
    used: Counter[Key] = field(default_factory=Counter)
    saved: Counter[Key] = field(default_factory=Counter)
    excused: set[Key] = field(default_factory=set)
    open: list[Held] = field(default_factory=list)
    leaked: dict[Held, int] = field(default_factory=dict)

    def reserved(self, key: Key) -> int:
        return sum(each.costs(each.tokens)[key] for each in self.open)

    def limit(self, key: Key) -> int | None:
        found = self.limits.get(key[0], Limits())
        if key[1] == "n":
            return found.daily_requests
        return found.daily_tokens if len(key[2]) == len("2026-01-01") else found.monthly_tokens

    def left(self, key: Key) -> float:
        limit = self.limit(key)
        return float("inf") if limit is None else limit - self.used[key] - self.reserved(key)

    def has(self, held: Held) -> bool:
        """Whether it can be ended: it is open, or seemed leaked."""
        return held in self.open or held in self.leaked

    def end(self, held: Held, cost: int | None) -> None:
        if held in self.leaked:
            # What it held has been given to others since.
            self.used.subtract(held.costs(self.leaked.pop(held)))
            self.excused.update(held.keys)
        else:
            self.open.remove(held)
        held.finished = True
        if cost is None:
            return
        self.used += held.costs(cost)
        if cost > held.tokens:
            self.excused.update(held.keys)

    def leak(self, held: Held) -> None:
        self.end(held, held.seen)
        held.finished = False
        self.leaked[held] = held.seen

    def look(self) -> None:
        for each in self.open:
            each.looked_at = each.seen

    def save(self) -> None:
        """What a crash leaves: what is settled, and what was open when last looked at."""
        self.saved = self.used.copy()
        for each in self.open:
            if each.looked_at:
                self.saved += each.costs(each.looked_at)


class LedgerMachine(RuleBasedStateMachine):
    """Requests, clocks, operators and crashes, in any order."""

    store_class: ClassVar[type[Store]]
    held = Bundle("held")
    ended = Bundle("ended")

    @initialize(
        now=st.integers(1_766_000_000, 1_800_000_000),
        acme=limits,
        beta=limits,
        steps=st.integers(1, 6),
    )
    def begin(self, now: int, acme: Limits, beta: Limits, steps: int) -> None:
        self.now = self.latest = float(now)
        # Whoever looks has the counters brought up to date; what decides must not need that.
        self.steps_a_look, self.steps = steps, 0
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-machine-"))
        self.oracle = Oracle({"acme": acme, "beta": beta})
        self.store = self.store_class(self.folder, self.oracle.limits, self.now)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.look()
            self.store.close()
            shutil.rmtree(self.folder)

    # -- requests ------------------------------------------------------------------------------

    @rule(
        target=held,
        organization=organizations,
        prompt=tokens,
        completion=tokens,
        clamp_to=st.integers(1, 60),
    )
    def reserve(self, organization: str, prompt: int, completion: int, clamp_to: int) -> Held:
        keys = keys_of(organization, self.now)
        least = min(completion, clamp_to)
        left = min(self.oracle.left(each) for each in keys[:2])
        admitted = prompt + least <= left and self.oracle.left(keys[2]) >= 1
        outcome = self.store.ledger.reserve(organization, prompt, completion, self.now, clamp_to)
        assert isinstance(outcome, Reservation if admitted else Refusal)
        if isinstance(outcome, Refusal):
            assert outcome.resets_at > self.now
            return Held(Reservation(None, 0, 0, False), keys, 0)
        granted = outcome.granted_completion_tokens
        assert granted == min(completion, left - prompt)
        assert outcome.clamped == (granted < completion)
        held = Held(outcome, keys, prompt + granted)
        self.oracle.open.append(held)
        return held

    def is_open(self, held: Held) -> bool:
        return held in self.oracle.open

    @rule(held=held, prompt=tokens, completion=tokens)
    def progress(self, held: Held, prompt: int, completion: int) -> None:
        if self.is_open(held):
            seen = min(prompt + completion, held.tokens)
            held.reservation.progress(min(prompt, seen), seen - min(prompt, seen))
            held.seen, held.still = seen, 0

    @rule(held=held)
    def touch(self, held: Held) -> None:
        held.reservation.touch()
        held.still = 0

    @rule(target=ended, held=consumes(held), share=st.floats(0, 1), overrun=st.integers(-40, 5))
    def settle(self, held: Held, share: float, overrun: int) -> Held:
        if self.oracle.has(held):
            cost = int(held.tokens * share) + (held.tokens + overrun if overrun > 0 else 0)
            assert self.store.ledger.settle(held.reservation, Usage(0, cost))
            self.oracle.end(held, cost)
        return held

    @rule(target=ended, held=consumes(held))
    def abandon(self, held: Held) -> Held:
        if self.oracle.has(held):
            assert self.store.ledger.settle(held.reservation, None)
            self.oracle.end(held, held.seen)
        return held

    @rule(target=ended, held=consumes(held))
    def release(self, held: Held) -> Held:
        if self.oracle.has(held):
            assert self.store.ledger.release(held.reservation)
            self.oracle.end(held, None)
        return held

    @rule(held=ended)
    def end_again(self, held: Held) -> None:
        if held.finished:
            assert not self.store.ledger.settle(held.reservation, Usage(9, 9))
            assert not self.store.ledger.release(held.reservation)

    @rule(periods=st.integers(0, 2))
    def expire(self, periods: int) -> None:
        for each in self.oracle.open:
            each.still += 1
        leaked = [each for each in self.oracle.open if each.still > periods]
        assert self.store.ledger.expire(periods) == len(leaked)
        for each in leaked:
            self.oracle.leak(each)

    # -- the clock -----------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 7_200))
    def wait(self, seconds: int) -> None:
        self.go_to(self.now + seconds)

    @rule(offset=st.sampled_from((-0.5, 0.0, 1.0)))
    def midnight(self, offset: float) -> None:
        self.go_to((self.now // 86_400 + 1) * 86_400 + offset)

    @rule(offset=st.sampled_from((-0.5, 0.0, 1.0)))
    def month_end(self, offset: float) -> None:
        moment = datetime.fromtimestamp(self.now, UTC)
        days = monthrange(moment.year, moment.month)[1] + 1 - moment.day
        first = datetime(moment.year, moment.month, moment.day, tzinfo=UTC) + timedelta(days=days)
        self.go_to(first.timestamp() + offset)

    @rule(seconds=st.integers(1, STEP_BACK_S))
    def step_back(self, seconds: int) -> None:
        self.now = max(self.now - seconds, self.latest - STEP_BACK_S)

    def go_to(self, now: float) -> None:
        self.now = now
        self.latest = max(now, self.latest)

    # -- the operator, the disk, the crash -----------------------------------------------------

    @rule(acme=limits, beta=limits)
    def change_limits(self, acme: Limits, beta: Limits) -> None:
        self.oracle.limits = {"acme": acme, "beta": beta}
        self.store.ledger.configure(self.oracle.limits)
        everything = set(self.oracle.used) | {key for each in self.oracle.open for key in each.keys}
        self.oracle.excused.update(key for key in everything if self.oracle.left(key) < 0)

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()
        self.oracle.look()

    @rule()
    def save(self) -> None:
        self.store.save(self.now)
        self.oracle.save()

    @rule()
    def tell_from_beside(self) -> None:
        """A command that reads what was written tells what the ledger itself does."""
        self.checkpoint()
        self.save()
        for organization, windows in self.store.told(self.oracle.limits, self.now).items():
            assert windows == self.store.ledger.windows(organization, self.now)

    @rule()
    @precondition(lambda self: self.oracle.used or self.oracle.open)
    def crash(self) -> None:
        self.store.crash(self.oracle.limits, self.now)
        self.oracle.used = self.oracle.saved.copy() if self.store.durable else Counter()
        self.oracle.open.clear()
        self.oracle.leaked.clear()
        self.oracle.save()

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def look_now_and_then(self) -> None:
        self.steps += 1
        if self.steps % self.steps_a_look == 0:
            self.look()

    def look(self) -> None:
        self.reserved_is_the_sum_of_the_open()
        self.it_tells_what_the_oracle_knows()
        self.nothing_is_negative_or_over_a_limit()

    def it_tells_what_the_oracle_knows(self) -> None:
        for organization in ORGANIZATIONS:
            keys = keys_of(organization, self.now)
            for key, told in zip(
                keys, self.store.ledger.windows(organization, self.now), strict=True
            ):
                assert told.used == self.oracle.used[key]
                assert told.reserved == self.oracle.reserved(key)
                assert told.limit == self.oracle.limit(key)
                assert told.resets_at > self.now

    def nothing_is_negative_or_over_a_limit(self) -> None:
        for organization in ORGANIZATIONS:
            keys = keys_of(organization, self.now)
            for key, told in zip(
                keys, self.store.ledger.windows(organization, self.now), strict=True
            ):
                assert told.used >= 0
                assert told.reserved >= 0
                if told.limit is not None and key not in self.oracle.excused:
                    assert told.used + told.reserved <= told.limit
                    assert told.remaining == told.limit - told.used - told.reserved

    def reserved_is_the_sum_of_the_open(self) -> None:
        ledger = self.store.ledger
        assert ledger.open_count() == len(self.oracle.open)
        for organization in ORGANIZATIONS:
            held = [each for each in self.oracle.open if each.keys[0][0] == organization]
            assert ledger.reserved_total(organization) == sum(each.tokens for each in held)
        assert ledger.discrepancies() == []


class MemoryMachine(LedgerMachine):
    """The ledger in memory."""

    store_class = MemoryStore


class SqliteMachine(LedgerMachine):
    """The ledger on disk."""

    store_class = SqliteStore


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = _settings(150)
TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = _settings(60)
