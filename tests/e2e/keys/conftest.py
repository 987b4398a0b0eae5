"""A router whose keys come from the file and from the command, in front of one engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.keys.house import ADMIN_KEY, ALPHA, BETA, GAMMA, House, organizations, settings
from e2e.keys.key_command import config_file, create_key, revoke_key
from e2e.keys.searching import search_all
from e2e.quota.organization import sha256
from support.daemon import Daemon
from support.upstream import ScriptedUpstream, Send
from support.wire import chat_answer


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
