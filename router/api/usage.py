"""`GET /v1/usage`, and the organizations in `/stats`: what is used, reserved and left."""

from __future__ import annotations

import time
from typing import Any

from router.access.identity import Identity
from router.api.answer import Answer, Asking, json_answer
from router.api.pages import timestamp
from router.ledger import Kind, Ledger, Period, WindowUsage


class UsagePages:
    """The ledger, told."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def own(self, _asking: Asking, identity: Identity) -> Answer:
        """`GET /v1/usage`: of the key's own organization; no windows for an anonymous caller."""
        organization = identity.organization
        windows = [] if organization is None else self._ledger.windows(organization, time.time())
        page = {"organization": organization, "windows": [_window(row) for row in windows]}
        return json_answer(page)

    def organizations(self) -> list[dict[str, Any]]:
        """One row an organization, for `/stats`."""
        now = time.time()
        return [
            _organization(name, self._ledger.windows(name, now))
            for name in self._ledger.organizations()
        ]


def _window(row: WindowUsage) -> dict[str, Any]:
    return {
        "kind": str(row.kind),
        "period": str(row.period),
        "limit": row.limit,
        "used": row.used,
        "reserved": row.reserved,
        "remaining": row.remaining,
        "resets_at": timestamp(row.resets_at),
    }


def _organization(name: str, windows: list[WindowUsage]) -> dict[str, Any]:
    by_kind = {(row.kind, row.period): row for row in windows}
    day = by_kind[Kind.TOKENS, Period.DAY]
    month = by_kind[Kind.TOKENS, Period.MONTH]
    requests = by_kind[Kind.REQUESTS, Period.DAY]
    return {
        "id": name,
        "tokens_today": day.used,
        "tokens_month": month.used,
        "requests_today": requests.used,
        "limits": {
            "daily_tokens": day.limit,
            "monthly_tokens": month.limit,
            "daily_requests": requests.limit,
        },
    }
