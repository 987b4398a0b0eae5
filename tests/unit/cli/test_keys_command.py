"""`router keys`: what it stores, what it prints and where, how it ends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from router.access.keyring import Keyring
from router.access.known import StoredKeys
from router.storage import Database, KeyRow, KeyTable, StorageError

Run = Callable[..., Result]


def raising(error: Exception) -> Callable[..., Any]:
    def fault(*_: object) -> Any:
        raise error

    return fault


def stored(folder: Path) -> list[KeyRow]:
    with Database.open(folder / "state" / "router.db", repair=False) as database:
        return KeyTable(database).rows()


# -- create ------------------------------------------------------------------------------------


def test_a_key_is_all_that_is_on_stdout_and_it_lets_in(run: Run, folder: Path) -> None:
    result = run("keys", "create", "--org", "acme")
    assert result.exit_code == 0
    key = result.stdout.strip()
    assert key.startswith("sk-")
    keyring = Keyring(stored=True)
    keyring.refresh_from(StoredKeys.of(stored(folder)))
    assert keyring.identify(f"Bearer {key}", None, time.time()).organization == "acme"


def test_of_a_key_only_its_hash_and_its_beginning_are_on_disk(run: Run, folder: Path) -> None:
    key = run("keys", "create", "--org", "acme").stdout.strip()
    (row,) = stored(folder)
    assert row.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert row.prefix == key[:7]
    for file in (folder / "state").iterdir():
        assert key.encode() not in file.read_bytes()
        assert key[7:].encode() not in file.read_bytes()


def test_what_is_asked_for_is_stored_and_said_on_stderr(run: Run, folder: Path) -> None:
    options = ("--models", "Qwen/*, chat", "--expires", "2090-01-01", "--priority", "5")
    result = run("keys", "create", "--org", "acme", "--id", "web", *options)
    (row,) = stored(folder)
    assert (row.id, row.organization, row.models) == ("web", "acme", ("Qwen/*", "chat"))
    assert (row.expires_at, row.priority, row.revoked_at) == (3_786_912_000.0, 5, None)
    assert abs(row.created_at - time.time()) < 60
    for said in ("web of acme", "Qwen/*, chat", "2090-01-01T00:00:00Z", "only time"):
        assert said in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_quiet_prints_the_key_alone(run: Run) -> None:
    result = run("keys", "create", "--org", "acme", "--quiet")
    assert result.stderr == ""
    assert len(result.stdout.split()) == 1


def test_keys_without_an_id_are_numbered_past_those_of_the_file(run: Run, folder: Path) -> None:
    run("keys", "create", "--org", "acme")
    run("keys", "create", "--org", "acme")
    assert [row.id for row in stored(folder)] == ["acme-2", "acme-3"]


@pytest.mark.parametrize("key_id", ["acme-1", "taken"])
def test_an_id_that_is_taken_in_the_file_or_the_database_fails_and_names_a_free_one(
    run: Run, folder: Path, key_id: str
) -> None:
    run("keys", "create", "--org", "acme", "--id", "taken")
    result = run("keys", "create", "--org", "acme", "--id", key_id)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "such as acme-2" in result.stderr
    assert len(stored(folder)) == 1


def test_an_organization_that_the_file_does_not_know_is_warned_of(run: Run) -> None:
    result = run("keys", "create", "--org", "acmee")
    assert result.exit_code == 0
    assert "did you mean acme?" in result.stderr


@pytest.mark.parametrize("scope", ["gpt-4o", "m", "org/m,m"])
def test_a_scope_that_is_no_full_name_is_warned_of(run: Run, folder: Path, scope: str) -> None:
    with (folder / "backends.yaml").open("a") as config:
        config.write("aliases: {gpt-4o: org/m}\n")
    result = run("keys", "create", "--org", "acme", "--models", scope)
    assert result.exit_code == 0
    assert "no full name, so it lets nothing in; write org/m" in result.stderr


@pytest.mark.parametrize("scope", ["*", "org/m", "org/*", "later/model"])
def test_a_scope_of_full_names_is_not_warned_of(run: Run, scope: str) -> None:
    assert "full name" not in run("keys", "create", "--org", "acme", "--models", scope).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_key_that_cannot_be_printed_is_told_by_its_id(folder: Path) -> None:
    command = [sys.executable, "-m", "router", "keys", "create", "--org", "acme"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=folder, check=False
        )
    assert ended.returncode == 1
    assert "router keys revoke acme-2" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_a_database_that_is_begun_is_warned_of_once(run: Run) -> None:
    assert "--state-dir" in run("keys", "create", "--org", "acme").stderr
    assert "--state-dir" not in run("keys", "create", "--org", "acme").stderr


def test_the_database_is_where_the_state_folder_is(run: Run, folder: Path) -> None:
    run("keys", "create", "--org", "acme", "--state-dir", str(folder / "there"))
    assert (folder / "there" / "state" / "router.db").exists()
    assert not (folder / "state").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--org", "a b"), "--org"),
        (("--org", "acme", "--expires", "soon"), "2027-01-01"),
        (("--org", "acme", "--expires", "2001-01-01"), "past"),
        (("--org", "acme", "--expires", ""), "--expires: not a date; write 2027-01-01"),
        (("--org", "acme", "--models", "a,,b"), "--models"),
        (("--org", "acme", "--priority", "1000"), "100"),
        (("--org", "acme", "--id", "a/b"), "--id"),
        (("--org", "acme", "--id", ""), "--id: must be 1 to 64 of letters"),
        ((), "--org"),
    ],
)
def test_a_wrong_option_exits_2_and_makes_nothing(
    run: Run, folder: Path, options: tuple[str, ...], told: str
) -> None:
    result = run("keys", "create", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert not (folder / "state").exists()


def test_a_ledger_in_memory_keeps_no_keys(run: Run, folder: Path) -> None:
    with (folder / "backends.yaml").open("a") as config:
        config.write("ledger: {url: 'memory://'}\n")
    result = run("keys", "create", "--org", "acme")
    assert result.exit_code == 2
    assert "sqlite:///state/router.db" in result.stderr


def test_a_database_that_cannot_be_read_fails_without_a_key(run: Run, folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "router.db").write_bytes(b"no database" * 500)
    for arguments in (("create", "--org", "acme"), ("list",), ("revoke", "x")):
        result = run("keys", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "cannot be read" in result.stderr
    assert (folder / "state" / "router.db").read_bytes().startswith(b"no database")


def test_a_wrong_configuration_exits_2(run: Run) -> None:
    for arguments in (("create", "--org", "acme"), ("list",), ("revoke", "x")):
        assert run("keys", *arguments, "--config", "none.yaml").exit_code == 2


# -- list and revoke ---------------------------------------------------------------------------


def test_the_list_has_the_keys_of_both_places_and_no_secret(run: Run) -> None:
    key = run("keys", "create", "--org", "beta", "--expires", "2090-01-01").stdout.strip()
    run("keys", "create", "--org", "beta")
    run("keys", "revoke", "beta-2")
    table = run("keys", "list").stdout
    listed = json.loads(run("keys", "list", "--json").stdout)
    assert [(each["id"], each["state"], each["kept_in"]) for each in listed] == [
        ("acme-1", "expired", "backends.yaml"),
        ("beta-1", "active", "database"),
        ("beta-2", "revoked", "database"),
    ]
    assert listed[1]["expires"] == "2090-01-01T00:00:00Z"
    digest = hashlib.sha256(key.encode()).hexdigest()
    for shown in (table, json.dumps(listed)):
        assert key[:7] in shown
        for secret in (key, digest, "a" * 64):
            assert secret not in shown


def test_without_a_database_the_list_has_the_keys_of_the_file(run: Run, folder: Path) -> None:
    result = run("keys", "list")
    assert result.exit_code == 0
    assert "acme-1" in result.stdout
    assert "is not there" in result.stderr
    assert not (folder / "state").exists()


def test_a_revoked_key_counts_for_nothing_and_stays_listed(run: Run, folder: Path) -> None:
    run("keys", "create", "--org", "acme")
    assert run("keys", "revoke", "acme-2").exit_code == 0
    (row,) = stored(folder)
    assert row.revoked_at is not None
    again = run("keys", "revoke", "acme-2")
    assert again.exit_code == 0
    assert "has been revoked since" in again.stdout
    assert stored(folder) == [row]


def test_a_key_that_is_not_there_cannot_be_revoked(run: Run) -> None:
    run("keys", "create", "--org", "acme", "--id", "web-server")
    result = run("keys", "revoke", "web-servr")
    assert result.exit_code == 1
    assert "did you mean web-server?" in result.stderr


@pytest.mark.parametrize("has_database", [False, True])
def test_a_key_of_the_file_is_not_revoked_but_it_says_how(run: Run, has_database: bool) -> None:
    if has_database:
        run("keys", "create", "--org", "acme")
    result = run("keys", "revoke", "acme-1")
    assert result.exit_code == 1
    assert "remove it there" in result.stderr


def test_revoking_makes_no_database(run: Run, folder: Path) -> None:
    assert run("keys", "revoke", "web").exit_code == 1
    assert not (folder / "state").exists()


def test_a_key_is_made_and_revoked_while_a_daemon_has_the_file_open(run: Run, folder: Path) -> None:
    with Database.open(folder / "state" / "router.db") as daemon:
        table = KeyTable(daemon)
        run("keys", "create", "--org", "acme", "--id", "web")
        assert [row.id for row in table.rows()] == ["web"]
        run("keys", "revoke", "web")
        assert table.rows()[0].revoked_at is not None


# -- a folder that is another user's -----------------------------------------------------------


def test_who_may_not_write_to_the_file_is_told_so(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says of it that it cannot open the file."""
    assert run("keys", "create", "--org", "acme").exit_code == 0
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "router.db")
    monkeypatch.setattr(KeyTable, "rows", raising(StorageError("router.db cannot be read")))
    result = run("keys", "create", "--org", "acme")
    assert result.exit_code == 1
    assert f"may not read and write {Path('state/router.db')}" in result.stderr


def test_who_cannot_make_the_folder_is_told_why(run: Run, folder: Path) -> None:
    (folder / "state").write_text("no folder")
    result = run("keys", "create", "--org", "acme")
    assert result.exit_code == 1
    assert "FileExistsError" in result.stderr


@pytest.mark.parametrize("command", [("create", "--org", "acme"), ("list",), ("revoke", "web")])
def test_who_may_not_look_into_the_folder_is_told_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    whole = Path.stat

    def stat(path: Path, **more: bool) -> os.stat_result:
        if path.name == "router.db":
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, **more)

    monkeypatch.setattr(Path, "stat", stat)
    result = run("keys", *command)
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr
