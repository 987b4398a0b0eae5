"""A router with keys, one service that answers and one that is down, asked from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from support.daemon import Daemon, free_port, service
from support.http import Response, call, chat
from support.upstream import ScriptedUpstream, Send
from support.wire import chat_answer

ADMIN, KEY = "the-admin-key", "a-client-key"
OUTSIDE = ("x-forwarded-for", "203.0.113.9")
BEARER = {
    "open": (),
    "status": (("authorization", f"Bearer {ADMIN}"),),
    "admin": (("authorization", f"Bearer {ADMIN}"),),
    "client": (("authorization", f"Bearer {KEY}"),),
}
Ask = Callable[..., Response]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    """Loopback is a proxy that is believed, so that a test can come from elsewhere."""
    upstream.script = lambda _: [Send(chat_answer())]
    organizations = [
        {"id": "acme", "keys": [{"id": "acme-1", "sha256": digest(KEY)}]},
        {"id": "free", "daily_tokens": None, "daily_requests": None},
    ]
    daemon = start_module_daemon(
        {
            "server": {"admin_key_sha256": digest(ADMIN), "trusted_proxies": ["127.0.0.0/8"]},
            "health": {"interval_s": 1},
            "services": [
                service("up", upstream.url, gpu=0, max_concurrency=4),
                service("down", f"http://127.0.0.1:{free_port()}", "gone/model"),
            ],
            "aliases": {"gpt-4o": "tiny"},
            "organizations": organizations,
        },
        healthy=1,
    )
    answer = call(daemon.port, "POST", "/v1/chat/completions", chat(), BEARER["client"])
    assert answer.status == 200
    return daemon


@pytest.fixture
def ask(router: Daemon) -> Ask:
    """Ask from outside: `ask(method, path, kind of key, body)`."""

    def asked(method: str, path: str, key: str = "open", body: Any = None) -> Response:
        return call(router.port, method, path, body, (OUTSIDE, *BEARER[key]))

    return asked
