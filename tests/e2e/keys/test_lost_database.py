"""The database, its lock too, is deleted or another one put in its place while the daemon runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.keys.house import ALPHA, GAMMA, settings
from e2e.keys.key_command import config_file, create_key, revoke_key, run_keys
from e2e.quota.organization import log_lines
from support.daemon import Daemon
from support.http import call, chat

DATABASE = Path("state") / "router.db"


def status(router: Daemon, key: str | None, model: str = ALPHA) -> int:
    headers = () if key is None else (("authorization", f"Bearer {key}"),)
    return call(router.port, "POST", "/v1/chat/completions", chat(model), headers).status


def delete(folder: Path) -> None:
    for each in (folder / DATABASE).parent.glob(f"{DATABASE.name}*"):
        if each.suffix not in {".lock", ".json"}:
            each.unlink()


def listed(folder: Path) -> list[str]:
    return [row["id"] for row in json.loads(run_keys(folder, "list", "--json"))]


@pytest.fixture
def start(engine, tmp_path: Path) -> Callable[[], Daemon]:
    config_file(tmp_path, settings(engine))
    return lambda: Daemon(tmp_path, settings(engine))


def test_who_was_known_goes_on_to_be_let_in_and_nobody_else(start, tmp_path):
    """Also after a restart; scope, expiry and revocation are as they were."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3_600))
    good = create_key(tmp_path, "acme", "--models", "team/*", "--expires", moment)
    revoked = create_key(tmp_path, "acme")
    revoke_key(tmp_path, "acme-2")
    before = json.loads(run_keys(tmp_path, "list", "--json"))
    with start() as router:
        assert status(router, good) == 200
        delete(tmp_path)
        assert status(router, good) == 200  # its usage begins the new file
        router.until(lambda: log_lines(router, "keys_written_back") != [], "written back")
        assert json.loads(run_keys(tmp_path, "list", "--json")) == before
        _as_before(router, good, revoked)
        assert not log_lines(router, "key_removed")
    with start() as router:
        _as_before(router, good, revoked)


def _as_before(router: Daemon, good: str, revoked: str) -> None:
    assert [status(router, key) for key in (good, revoked, None)] == [200, 401, 401]
    assert status(router, good, GAMMA) == 403


def test_a_daemon_that_ends_at_once_leaves_no_open_house(start, tmp_path):
    """Nobody has asked anything since the file was deleted."""
    key = create_key(tmp_path, "acme")
    with start() as router:
        delete(tmp_path)
        assert router.terminate() == 0
    with start() as router:
        assert (status(router, key), status(router, None)) == (200, 401)


def test_a_key_made_beside_those_that_were_written_back_counts_too(start, tmp_path):
    first = create_key(tmp_path, "acme")
    with start() as router:
        delete(tmp_path)
        assert status(router, first) == 200
        router.until(lambda: log_lines(router, "keys_written_back") != [], "written back")
        second = create_key(tmp_path, "acme")
        router.until(lambda: status(router, second) == 200, "the new key")
        assert status(router, first) == 200
        assert listed(tmp_path) == ["acme-1", "acme-2"]


def test_a_database_with_keys_of_its_own_that_is_put_there_counts_as_it_is(start, tmp_path):
    theirs = create_key(tmp_path, "theirs")
    (tmp_path / DATABASE).rename(tmp_path / "other.db")
    delete(tmp_path)
    ours = create_key(tmp_path, "ours")
    with start() as router:
        assert (status(router, ours), status(router, theirs)) == (200, 401)
        delete(tmp_path)
        (tmp_path / "other.db").rename(tmp_path / DATABASE)
        router.until(lambda: status(router, theirs) == 200, "the other keys")
        assert (status(router, ours), status(router, None)) == (401, 401)
        assert listed(tmp_path) == ["theirs-1"]


def test_a_database_whose_lock_was_deleted_has_one_daemon_still(start, engine, tmp_path):
    with start() as router:
        (tmp_path / f"{DATABASE}.lock").unlink()
        router.until(lambda: log_lines(router, "state_claimed_again") != [], "claimed again")
        second = Daemon(
            tmp_path / "second", settings(engine), options=("--state-dir", str(tmp_path))
        )
        assert second.wait() == 1
        assert "another router uses" in second.log
