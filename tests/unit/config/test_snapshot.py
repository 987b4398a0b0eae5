"""The file that tells other processes what runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from router.config import Settings
from router.config.diff import diff_redacted
from router.config.redacted import redacted
from router.config.snapshot import (
    SnapshotError,
    read_snapshot,
    remove_snapshot,
    snapshot_path,
    write_snapshot,
)

SETTINGS = Settings.model_validate(
    {"services": [{"name": "a", "url": "http://a", "api_key": "hunter2", "gpu": 1}]}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return snapshot_path(tmp_path / "state" / "router.db")


def test_it_stands_beside_the_state_database(tmp_path: Path):
    assert snapshot_path(tmp_path / "router.db") == tmp_path / "router.db.running.json"


def test_what_is_read_is_what_was_written(path: Path):
    write_snapshot(path, SETTINGS, generation=3, pinned=("server.port",))
    snapshot = read_snapshot(path)
    assert diff_redacted(snapshot.settings, redacted(SETTINGS)).is_empty
    assert (snapshot.generation, snapshot.pinned) == (3, ("server.port",))


def test_only_its_owner_can_read_it_and_it_holds_no_secret(path: Path):
    path.parent.mkdir()
    path.write_text("an old one, open to all")
    path.chmod(0o644)
    write_snapshot(path, SETTINGS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "hunter2" not in path.read_text()


def test_nothing_but_the_snapshot_is_left_even_after_a_crash_in_mid_write(path: Path):
    path.parent.mkdir()
    path.with_name(f"{path.name}.new").write_text('{"half')
    write_snapshot(path, SETTINGS)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no daemon with this state runs"),
        ("", "not written by this release"),
        ("[]", "not written by this release"),
        ('{"format": 99}', "not written by this release"),
        ("[" * 100_000, "not written by this release"),
        ('{"format": 1, "generation": "x"}', "damaged"),
    ],
)
def test_what_is_no_snapshot_is_told_with_the_reason(path: Path, content: str | None, why: str):
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(SnapshotError, match=why):
        read_snapshot(path)


def test_it_can_be_removed_twice(path: Path):
    write_snapshot(path, SETTINGS)
    remove_snapshot(path)
    remove_snapshot(path)
    assert not path.exists()
