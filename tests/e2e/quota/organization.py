"""Organizations, keys and quotas for tests, and what the daemon's own pages say of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from support.daemon import Daemon
from support.http import Response, call, chat

ACME_KEY = "sk-acme-0123456789abcdefghijklmnopqrstuv"
BEARER = (("authorization", f"Bearer {ACME_KEY}"),)
CHAT = "/v1/chat/completions"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def organization(name: str = "acme", key: str = ACME_KEY, **limits: int | None) -> dict[str, Any]:
    """One row of `organizations:` with one key; limits that are not given are none at all."""
    none = {"daily_tokens": None, "monthly_tokens": None, "daily_requests": None}
    return {"id": name, **none, **limits, "keys": [{"id": f"{name}-1", "sha256": sha256(key)}]}


def windows(router: Daemon, key: str = ACME_KEY) -> dict[tuple[str, str], dict[str, Any]]:
    """`GET /v1/usage` by (kind, period)."""
    answer = call(router.port, "GET", "/v1/usage", None, (("authorization", f"Bearer {key}"),))
    assert answer.status == 200, answer.body
    return {(row["kind"], row["period"]): row for row in answer.json["windows"]}


def used(router: Daemon) -> int:
    """Tokens settled today."""
    return int(windows(router)["tokens", "day"]["used"])


def ask(router: Daemon, body: Any, path: str = CHAT, *more: tuple[str, str]) -> Response:
    """Send a request with the key, and read the whole answer."""
    return call(router.port, "POST", path, body, (*BEARER, *more))


def until_settled(router: Daemon, timeout: float = 15) -> None:
    """Wait until no request holds a reservation, then check that the books are in order."""
    router.until(lambda: router.metric("router_ledger_open_reservations") == 0, "settled", timeout)
    assert router.metric("router_ledger_discrepancies") == 0
    assert all(row["reserved"] == 0 for row in windows(router).values())


def log_lines(router: Daemon, event: str) -> list[dict[str, Any]]:
    """The JSON lines of the daemon's log that tell of one event."""
    rows = (json.loads(line) for line in router.log.splitlines() if line.startswith("{"))
    return [row for row in rows if row.get("event") == event]


def small_chat(**more: Any) -> dict[str, Any]:
    return chat("tiny", **more)
