"""`python -m router keys …`, run as its own process beside a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


def config_file(folder: Path, config: dict[str, Any]) -> None:
    """Write the file that the command reads before a daemon has written its own."""
    (folder / "backends.yaml").write_text(yaml.safe_dump(config))


def run_keys(folder: Path, *arguments: str) -> str:
    """Run the command in a daemon's folder; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "router", "keys", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def create_key(folder: Path, org: str, *more: str) -> str:
    """Make a key; the key itself."""
    key = run_keys(folder, "create", "--org", org, *more).strip()
    assert key.startswith("sk-")
    assert len(key) >= 46
    return key


def revoke_key(folder: Path, key_id: str) -> None:
    run_keys(folder, "revoke", key_id)
