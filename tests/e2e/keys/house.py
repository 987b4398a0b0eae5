"""A house for tests of keys: three models, keys from the file and from the command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.quota.organization import sha256
from support.daemon import Daemon, service
from support.upstream import ScriptedUpstream

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
