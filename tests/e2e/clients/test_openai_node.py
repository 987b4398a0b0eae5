"""The official Node.js client works through the router."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "node" / "checks.mjs"
NAMES = {
    "chat", "headers", "stream", "include_usage", "leave_early", "tools", "tools_stream", "models",
    "embeddings", "not_found_error", "bad_request_error",
}  # fmt: skip

pytestmark = pytest.mark.node


def test_every_check_of_the_node_client_passes(fleet, tmp_path):
    """The script lies beside `node_modules`, for that is where Node looks for packages."""
    script = tmp_path / CHECKS.name
    shutil.copy(CHECKS, script)
    (tmp_path / "node_modules").symlink_to(Path(os.environ["NODE_CLIENT"]) / "node_modules")
    environment = {
        **os.environ, "BASE_URL": fleet.base_url, "MODEL": fleet.model, "ALIAS": fleet.alias,
        "EMBEDS": str(int(fleet.embeds)), "CONTEXT": str(fleet.context),
    }  # fmt: skip
    done = subprocess.run(
        ["node", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {result["name"] for result in results} == NAMES
    assert not [result for result in results if not result["ok"]]
    fleet.router.until_idle(5)
