"""A router whose keys come from the file and from the command, in front of one engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.keys.key_command import config_file, create_key, revoke_key
from e2e.keys.searching import search_all
from e2e.quota.organization import sha256
from support.daemon import Daemon, service
from support.upstream import ScriptedUpstream, Send
from support.wire import chat_answer

ALPHA, BETA, GAMMA = "team/alpha", "team/beta", "other/gamma"
ADMIN_KEY = "sk-admin-YYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYY"


@dataclass(slots=True)
class House:
    """A running router and the keys that its tests use.

    Attributes:
        keys: by what is the matter with them.
    """

    router: Daemon
    upstream: ScriptedUpstream
    folder: Path
    keys: dict[str, str] = field(default_factory=dict, repr=False)


def settings(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """Three models on one engine, an alias and a named route to the third."""
    return {
        "services": [service("engine", upstream.url, ALPHA, BETA, GAMMA, api_key="engine-key")],
        "aliases": {"gpt": GAMMA, "small": ALPHA},
        "routes": [{"path": "/text2sql", "model": GAMMA}],
        **more,
    }


def organizations() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """`organizations:` of the file, and the keys themselves by name."""
    keys = {name: f"sk-file-{name}-0123456789abcdefghijklmnop" for name in ("wide", "team", "old")}
    rows = [
        {"id": "wide-1", "sha256": sha256(keys["wide"])},
        {"id": "team-1", "sha256": sha256(keys["team"]), "models": ["team/*"]},
        {"id": "old-1", "sha256": sha256(keys["old"]), "expires": "2020-01-01"},
    ]
    return [{"id": "acme", "daily_tokens": 10_000_000, "keys": rows}], keys


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(lambda _: [Send(chat_answer())], models=(ALPHA, BETA, GAMMA)) as engine:
        yield engine


@pytest.fixture(scope="module")
def house(engine: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Started with one key already revoked; when it has ended, nothing holds any key in clear."""
    folder = tmp_path_factory.mktemp("house")
    rows, keys = organizations()
    config = settings(engine, organizations=rows, server={"admin_key_sha256": sha256(ADMIN_KEY)})
    config_file(folder, config)
    keys["revoked"] = create_key(folder, "acme", "--id", "was-once")
    keys["stored"] = create_key(folder, "beta", "--models", f"{GAMMA},{BETA}")
    revoke_key(folder, "was-once")
    with Daemon(folder, config) as router:
        yield House(router, engine, folder, keys)
        pages = [router.get(path).body for path in ("/stats", "/services", "/metrics")]
    assert search_all(folder, engine, pages, [*keys.values(), ADMIN_KEY]) == []
