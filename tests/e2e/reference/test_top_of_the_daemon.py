"""`router top` asks the running daemon, and shows what it tells."""

from __future__ import annotations

import os
import subprocess
import sys

from e2e.reference.conftest import ADMIN


def top(url: str, **more: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "router", "top", "--url", url],
        check=True, capture_output=True, text=True, timeout=60, env={**os.environ, **more},
    )  # fmt: skip
    return ended.stdout


def line(shown: str, start: str) -> list[str]:
    (found,) = (each for each in shown.splitlines() if each.startswith(start))
    return found.split()


def test_it_shows_every_service_with_its_state(router):
    shown = top(router.url)
    assert line(shown, "up ")[:5] == ["up", "healthy", "0", "tiny", "0/4"]
    assert line(shown, "down ")[:3] == ["down", "loading", "model"]
    assert "1/2 healthy" in shown
    assert "acme" not in shown


def test_with_the_admin_key_it_shows_organizations(router):
    assert line(top(router.url, ROUTER_ADMIN_KEY=ADMIN), "acme ")[2:4] == ["10,000,000", "0%"]
