"""The daemon with one organization before one scripted engine, for one test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.quota.organization import organization
from support.daemon import Daemon, service
from support.upstream import Script, ScriptedUpstream

StartMetered = Callable[..., tuple[Daemon, ScriptedUpstream]]


@pytest.fixture
def start_metered(start_daemon, start_upstream) -> StartMetered:
    """Start an engine with a context of 512 tokens and a daemon; limits are the organization's."""

    def start(script: Script | None = None, **limits: int) -> tuple[Daemon, ScriptedUpstream]:
        upstream = start_upstream(script)
        rows = [service("engine", upstream.url, "tiny")]
        router = start_daemon({"organizations": [organization(**limits)], "services": rows})
        return router, upstream

    return start
