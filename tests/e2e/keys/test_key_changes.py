"""Keys that are made and revoked beside a running daemon, and when nobody needs one."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.keys.house import ALPHA, House, settings
from e2e.keys.key_command import config_file, create_key, revoke_key, run_keys
from e2e.keys.searching import search_all
from e2e.quota.organization import log_lines, windows
from support.daemon import Daemon
from support.http import Client, call, chat

CHAT = "/v1/chat/completions"
PATIENCE_S = 5.0
"""The promise is one second; a busy machine is given more before the test fails."""


def status(router: Daemon, key: str | None) -> int:
    headers = () if key is None else (("authorization", f"Bearer {key}"),)
    return call(router.port, "POST", CHAT, chat(ALPHA), headers).status


def seconds_until(reached: Callable[[], bool]) -> float:
    """How long until it is so."""
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - begun


def test_a_key_counts_and_ends_within_a_second_of_its_command(house: House, finding):
    router, folder = house.router, house.folder
    key = house.keys["late"] = create_key(folder, "late", "--id", "late-1", "--models", "team/*")
    made = seconds_until(lambda: status(router, key) == 200)
    assert windows(router, key)["tokens", "day"]["limit"] == 10_000_000
    assert "late-1" in run_keys(folder, "list")
    revoke_key(folder, "late-1")
    ended = seconds_until(lambda: status(router, key) == 401)
    finding(f"a key counts {made:.2f} s after its command, and ends {ended:.2f} s after")
    assert [line["key_id"] for line in log_lines(router, "key_revoked")] == ["late-1"]
    assert "late-1" in [line["key_id"] for line in log_lines(router, "key_made")]


def test_a_key_ends_by_itself_at_its_moment(house: House):
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    key = house.keys["short"] = create_key(house.folder, "acme", "--expires", moment)
    seconds_until(lambda: status(house.router, key) == 200)
    seconds_until(lambda: status(house.router, key) == 401)


def test_several_keys_of_an_organization_count_at_once_and_share_its_quota(house: House):
    keys = [create_key(house.folder, "rotating") for _ in range(2)]
    house.keys |= {f"rotating-{n}": key for n, key in enumerate(keys)}
    for key in keys:
        seconds_until(lambda key=key: status(house.router, key) == 200)
    assert {windows(house.router, key)["requests", "day"]["used"] for key in keys} == {2}
    revoke_key(house.folder, "rotating-1")
    seconds_until(lambda: status(house.router, keys[0]) == 401)
    assert status(house.router, keys[1]) == 200


def test_a_key_ends_also_after_descriptors_had_run_out(engine, tmp_path: Path):
    config_file(tmp_path, settings(engine))
    key = create_key(tmp_path, "acme", "--id", "acme-1")
    with Daemon(tmp_path, settings(engine)) as router, ExitStack() as crowd:
        _, hard = resource.prlimit(router.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (router.open_files + 20, hard))
        for _ in range(60):
            crowd.enter_context(Client(router.port))
        router.until(lambda: "keys_unread" in router.log, "out of descriptors")
        crowd.close()
        router.until(lambda: "keys_read_again" in router.log, "keys are followed again")
        assert status(router, key) == 200
        revoke_key(tmp_path, "acme-1")
        seconds_until(lambda: status(router, key) == 401)


@pytest.fixture
def open_house(engine, tmp_path: Path) -> Callable[[], Daemon]:
    return lambda: Daemon(tmp_path, settings(engine))


def test_without_any_key_anywhere_everybody_is_let_in_and_the_log_says_so(open_house):
    with open_house() as router:
        assert status(router, None) == 200
        assert status(router, "sk-whatever") == 200
        [line] = log_lines(router, "anonymous")
        assert line["level"] == "warning"
        page = call(router.port, "GET", "/v1/usage").json
        assert page == {"organization": None, "windows": []}


def test_the_first_key_closes_the_house_and_revoking_the_last_does_not_open_it(
    open_house, engine, tmp_path
):
    with open_house() as router:
        assert status(router, None) == 200
        key = create_key(tmp_path, "acme")
        seconds_until(lambda: status(router, None) == 401)
        assert status(router, key) == 200
        revoke_key(tmp_path, "acme-1")
        seconds_until(lambda: status(router, key) == 401)
        assert status(router, None) == 401
    with open_house() as router:
        assert (status(router, None), status(router, key)) == (401, 401)
    assert search_all(tmp_path, engine, [], [key]) == []


def test_keys_outlive_a_restart(open_house, tmp_path):
    with open_house():
        key = create_key(tmp_path, "acme")
    with open_house() as router:
        assert (status(router, key), status(router, None)) == (200, 401)
