"""A log that nobody reads: whoever started the router has stopped to read its pipe."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from e2e.quota.organization import organization
from support.daemon import free_port
from support.http import call

REFUSALS = 2500


@pytest.fixture
def unread(tmp_path: Path):
    """A router whose stderr is a pipe that is never read; its port."""
    port = free_port()
    config = tmp_path / "backends.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "server": {"host": "127.0.0.1", "port": port, "drain_timeout_s": 1},
                "limits": {"per_ip": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
                "organizations": [organization()],
                "ledger": {"url": "memory://"},
                "services": [{"name": "a", "url": "http://127.0.0.1:9", "models": ["m"]}],
            }
        )
    )
    command = [sys.executable, "-m", "router", "serve", "--config", str(config)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if call(port, "GET", "/health/live").status == 200:
                break
        except OSError:
            time.sleep(0.05)
    yield child, port
    child.kill()
    child.wait()


def test_the_router_serves_on_and_ends_when_told(unread):
    child, port = unread
    for _ in range(REFUSALS):
        assert call(port, "GET", "/nowhere").status == 404
    wrong = (("authorization", "Bearer sk-wrong"),)
    assert call(port, "GET", "/v1/models", None, wrong).status == 401
    assert call(port, "GET", "/health/live").status == 200
    child.terminate()
    assert child.wait(15) == 0
