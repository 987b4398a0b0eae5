"""Reservations and usage: nobody overspends by running requests side by side.

    ledger = MemoryLedger({"acme": Limits(daily_tokens=10_000_000)})
    outcome = ledger.reserve("acme", prompt_tokens=900, completion_tokens=4_096, now=time.time())
    if isinstance(outcome, Refusal): ...          # which limit, what is used, when it ends
    outcome.granted_completion_tokens             # send no higher max_tokens than this
    outcome.progress(900, 17)                     # the last usage seen, as often as one likes
    ledger.settle(outcome, Usage(900, 42))        # or release(outcome); the first one counts

`SqliteLedger` is the same, and durable: `await start(now)`, `run()` as a task, `await close()`.

No method that decides awaits, so between a decision and what it takes nothing can come. A ledger
whose truth is elsewhere keeps that: its `run` fetches blocks of budget ahead of need, and `reserve`
decides within the block that is held.
"""

from __future__ import annotations

from router.ledger.accounts import Reservation
from router.ledger.base import Ledger
from router.ledger.memory import MemoryLedger
from router.ledger.sqlite import SqliteLedger, stored_usage
from router.ledger.values import Kind, Limits, Refusal, Tightest, WindowUsage
from router.ledger.windows import Period, Window, day_of, month_of

__all__ = [
    "Kind",
    "Ledger",
    "Limits",
    "MemoryLedger",
    "Period",
    "Refusal",
    "Reservation",
    "SqliteLedger",
    "Tightest",
    "Window",
    "WindowUsage",
    "day_of",
    "month_of",
    "stored_usage",
]
