"""`router keys`: make, list and revoke the keys that are kept in the state database."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from router.access.secret import digest_of, new_key, shown_part
from router.cli.key_list import key_lines, print_lines, utc
from router.cli.state import (
    DEFAULT_CONFIG,
    ConfigOption,
    StateDirOption,
    existing_or_exit,
    exists_or_exit,
    fail,
    load_or_exit,
    opened_database,
    state_path,
    state_path_or_exit,
    tell,
)
from router.config import Settings
from router.config.checks import full_name
from router.config.settings import KeySettings, OrganizationSettings
from router.config.wording import message_of, nearest
from router.storage import Database, KeyRow, KeyTable, StorageError

_WRITTEN_WITHIN_S = 10.0
_ATTEMPTS = 10
_LONGEST_STEM = 56
_NO_DATABASE = (
    "there is no database to keep keys in; write ledger.url: sqlite:///state/router.db, or put"
    " the SHA-256 of a key under organizations[].keys"
)

keys_app = typer.Typer(
    name="keys",
    help="Keys of clients: make, list and revoke them, whether the daemon runs or not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.command()
def create(
    *,
    org: Annotated[str, typer.Option(help="Organization that pays for its requests.")],
    models: Annotated[
        str,
        typer.Option(help="Full names of its models, comma separated; * is any characters."),
    ] = "*",
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Day or moment at which it ends, UTC: 2027-01-01.",
            show_default="never",
        ),
    ] = None,
    key_id: Annotated[
        str | None,
        typer.Option("--id", help="What logs call it.", show_default="ORG-1, ORG-2, …"),
    ] = None,
    priority: Annotated[int, typer.Option(help="In a queue, higher goes first.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the key alone.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state_dir: StateDirOption = None,
) -> None:
    """Make a key and print it, once: only its SHA-256 is kept.

    The key alone is on stdout; what there is to say about it is on stderr. A running daemon takes
    it within a second.
    """
    settings = load_or_exit(config)
    path = state_path_or_exit(settings, state_dir, _NO_DATABASE)
    key, now = new_key(), time.time()
    checked = _checked(org, key, key_id=key_id, models=models, expires=expires, priority=priority)
    if checked.expires is not None and checked.expires.timestamp() <= now:
        raise typer.BadParameter("lies in the past; leave it out for never", param_hint="--expires")
    is_new = not exists_or_exit(path)
    with opened_database(path) as database:
        row = _inserted(
            database, settings, _row(org, key, checked, now), is_named=key_id is not None
        )
    if not quiet:
        tell("\n".join(_explanation(row, settings, config, path if is_new else None)))
    _print_key(key, row.id)


@keys_app.command("list")
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state_dir: StateDirOption = None,
) -> None:
    """Print all keys, those of the state database and those of the configuration."""
    settings = load_or_exit(config)
    path = state_path(settings, state_dir)
    rows: list[KeyRow] = []
    if path is not None and exists_or_exit(path):
        with opened_database(path) as database:
            rows = KeyTable(database).rows()
    elif path is not None:
        tell(f"{path} is not there; these are the keys of {config} alone")
    lines = key_lines(settings.organizations, rows, str(config), time.time())
    if as_json:
        print(json.dumps([line.plain() for line in lines], indent=2))
    else:
        print_lines(lines)


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `router keys list` shows it.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state_dir: StateDirOption = None,
) -> None:
    """Have a key count for nothing from now on; a running daemon refuses it within a second."""
    settings = load_or_exit(config)
    configured = _configured_ids(settings)
    path = state_path_or_exit(settings, state_dir, f"remove the key from {config}")
    if key_id in configured and not exists_or_exit(path):
        fail(_is_configured(key_id, config), status=1)
    with opened_database(existing_or_exit(path)) as database:
        table = KeyTable(database)
        row = next((row for row in table.rows() if row.id == key_id), None)
        if row is None:
            known = [row.id for row in table.rows()]
            fail(_no_such_key(key_id, known, configured, config), status=1)
        if row.revoked_at is not None:
            print(f"{key_id} has been revoked since {utc(row.revoked_at)}")
            return
        _written(table.revoke(key_id, time.time()), database)
    print(f"{key_id} of {row.organization} is revoked")
    if key_id in configured:
        tell(f"warning: another key {_is_configured(key_id, config)}")


# -- what is asked for -------------------------------------------------------------------------


def _checked(
    org: str, key: str, *, key_id: str | None, models: str, expires: str | None, priority: int
) -> KeySettings:
    """The options as a key of the configuration would be checked; a wrong one ends with 2."""
    try:
        OrganizationSettings.model_validate({"id": org})
    except ValidationError as error:
        raise _wrong_option(error, "--org") from None
    asked = {
        "id": org if key_id is None else key_id,
        "sha256": digest_of(key).hex(),
        "models": tuple(part.strip() for part in models.split(",")),
        "priority": priority,
    }
    # An empty text is not an option left out: a variable that nobody set would make a key for ever.
    ends = {} if expires is None else {"expires": expires}
    try:
        return KeySettings.model_validate(asked | ends)
    except ValidationError as error:
        raise _wrong_option(error, f"--{error.errors()[0]['loc'][0]}") from None


def _wrong_option(error: ValidationError, option: str) -> typer.BadParameter:
    return typer.BadParameter(message_of(error.errors()[0], show_value=True), param_hint=option)


def _row(org: str, key: str, checked: KeySettings, now: float) -> KeyRow:
    return KeyRow(
        id=checked.id,
        organization=org,
        sha256=checked.sha256,
        prefix=shown_part(key),
        models=checked.models,
        created_at=now,
        expires_at=None if checked.expires is None else checked.expires.timestamp(),
        priority=checked.priority,
    )


def _configured_ids(settings: Settings) -> frozenset[str]:
    return frozenset(key.id for each in settings.organizations for key in each.keys)


# -- what is written ---------------------------------------------------------------------------


def _inserted(database: Database, settings: Settings, row: KeyRow, *, is_named: bool) -> KeyRow:
    """The row as it was written; without a name of its own it gets the next free number."""
    table = KeyTable(database)
    for _ in range(_ATTEMPTS):
        taken = _configured_ids(settings) | {each.id for each in table.rows()}
        free = next(_free_ids(row.organization, taken))
        if is_named and row.id in taken:
            fail(f"there is a key {row.id} already; write another --id, such as {free}", status=1)
        row = row if is_named else replace(row, id=free)
        try:
            _written(table.insert(row), database)
        except sqlite3.IntegrityError:
            continue  # another command took the id since it was looked up
        return row
    raise StorageError("other commands make keys at the same time; try again")


def _free_ids(organization: str, taken: Collection[str]) -> Iterator[str]:
    numbered = (f"{organization[:_LONGEST_STEM]}-{number}" for number in itertools.count(1))
    return (key_id for key_id in numbered if key_id not in taken)


def _written(writing: Future[list[list[tuple[object, ...]]]], database: Database) -> None:
    """Wait until it is on disk.

    Raises:
        StorageError: it is not, in time, and will not be if that can be helped.
    """
    try:
        writing.result(_WRITTEN_WITHIN_S)
    except TimeoutError:
        writing.cancel()
        reason = database.status().last_error or "the disk does not answer"
        raise StorageError(f"{database.path} cannot be written: {reason}") from None


def _print_key(key: str, key_id: str) -> None:
    """Print it; where that fails nobody has it, though it lets in."""
    try:
        print(key, flush=True)
    except OSError as error:
        # Its buffer still holds the key: the interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(
            f"key {key_id} was made and could not be printed ({error.strerror}): nobody has it;"
            f" revoke it: router keys revoke {key_id}",
            status=1,
        )


# -- what is said ------------------------------------------------------------------------------


def _explanation(
    row: KeyRow, settings: Settings, config: Path, new_file: Path | None
) -> Iterator[str]:
    expires = "never expires" if row.expires_at is None else f"expires {utc(row.expires_at)}"
    yield f"key {row.id} of {row.organization}, models {', '.join(row.models)}, {expires}"
    yield "This is the only time it is shown; its SHA-256 alone is kept."
    known = [each.id for each in settings.organizations]
    if row.organization not in known:
        meant = nearest(row.organization, known)
        question = f" (did you mean {meant}?)" if meant else ""
        yield (
            f"warning: {config} has no organization {row.organization}{question}; the key works,"
            " within the limits that are the default"
        )
    models = {model for each in settings.services for model in each.models or ()}
    for pattern in row.models:
        full = full_name(pattern, models, settings.aliases)
        if full is not None:
            yield f"warning: {pattern} is no full name, so it lets nothing in; write {full}"
    if new_file is not None:
        yield (
            f"warning: {new_file} was not there and has been made; the daemon must run in the"
            " same folder, or with the same --state-dir"
        )


def _is_configured(key_id: str, config: Path) -> str:
    return f"{key_id} stands in {config}: remove it there, and a running daemon takes that over"


def _no_such_key(
    key_id: str, known: Collection[str], configured: Collection[str], config: Path
) -> str:
    if key_id in configured:
        return _is_configured(key_id, config)
    meant = nearest(key_id, known)
    remedy = f"did you mean {meant}?" if meant else "`router keys list` shows them all"
    return f"there is no key {key_id}; {remedy}"
