"""`GET /v1/usage` and the organizations of `/stats`: what the ledger holds, told."""

from __future__ import annotations

import json
import time

import pytest

from router.access.identity import ANONYMOUS, Identity
from router.access.scope import ModelScope
from router.api.usage import UsagePages
from router.ledger import Limits, MemoryLedger
from router.model import Usage

ACME = Identity("acme", "acme-1", 0, ModelScope(("*",)))


@pytest.fixture
def ledger() -> MemoryLedger:
    """`acme` has used 30 tokens and holds 12; `beta` has no limit on tokens and did nothing."""
    ledger = MemoryLedger({"acme": Limits(100, 1000, 10), "beta": Limits(None, None, 5)})
    now = time.time()
    ledger.settle(ledger.reserve("acme", 20, 20, now), Usage(20, 10))
    ledger.reserve("acme", 5, 7, now)
    return ledger


def own(ledger: MemoryLedger, identity: Identity) -> dict:
    answer = UsagePages(ledger).own(None, identity)
    assert (answer.status, answer.content_type) == (200, "application/json")
    return json.loads(answer.body)


def test_a_key_sees_the_three_windows_of_its_own_organization(ledger):
    page = own(ledger, ACME)
    assert page["organization"] == "acme"
    rows = [{k: v for k, v in row.items() if k != "resets_at"} for row in page["windows"]]
    assert rows == [
        {"kind": "tokens", "period": "day", "limit": 100, "used": 30, "reserved": 12,
         "remaining": 58},
        {"kind": "tokens", "period": "month", "limit": 1000, "used": 30, "reserved": 12,
         "remaining": 958},
        {"kind": "requests", "period": "day", "limit": 10, "used": 1, "reserved": 1,
         "remaining": 8},
    ]  # fmt: skip


def test_windows_end_at_midnight_utc(ledger):
    page = own(ledger, ACME)
    assert all(row["resets_at"].endswith("T00:00:00Z") for row in page["windows"])
    assert page["windows"][1]["resets_at"][8:10] == "01"


def test_where_there_is_no_limit_it_is_null(ledger):
    page = own(ledger, Identity("beta", "beta-1", 0, ModelScope(("*",))))
    assert [(row["limit"], row["remaining"]) for row in page["windows"]] == [
        (None, None), (None, None), (5, 5),
    ]  # fmt: skip


def test_the_anonymous_have_no_windows(ledger):
    assert own(ledger, ANONYMOUS) == {"organization": None, "windows": []}


def test_looking_makes_no_organization(ledger):
    own(ledger, Identity("ghost", "ghost-1", 0, ModelScope(("*",))))
    assert ledger.organizations() == ["acme", "beta"]


def test_the_operators_rows_have_the_contracts_fields(ledger):
    assert UsagePages(ledger).organizations() == [
        {
            "id": "acme", "tokens_today": 30, "tokens_month": 30, "requests_today": 1,
            "limits": {"daily_tokens": 100, "monthly_tokens": 1000, "daily_requests": 10},
        },
        {
            "id": "beta", "tokens_today": 0, "tokens_month": 0, "requests_today": 0,
            "limits": {"daily_tokens": None, "monthly_tokens": None, "daily_requests": 5},
        },
    ]  # fmt: skip
