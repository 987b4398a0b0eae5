"""What commands beside the daemon share: its configuration, and the file of its state."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from router.config import ConfigurationError, Settings, load
from router.log import configure_logging
from router.storage import Database, StorageError

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that a relative path in ledger.url starts from, as for `router serve`.",
        show_default="the current one",
    ),
]
DEFAULT_CONFIG = Path("backends.yaml")


def state_path(settings: Settings, state_dir: Path | None) -> Path | None:
    """The state database: `ledger.url`, if relative from `state_dir`; None for one in memory."""
    path = settings.ledger.path
    return path if path is None or state_dir is None else state_dir / path


def load_or_exit(config: Path) -> Settings:
    """Read the configuration, or end with all that is wrong with it and status 2."""
    try:
        return load(config)
    except ConfigurationError as error:
        fail(str(error), status=2)


def state_path_or_exit(settings: Settings, state_dir: Path | None, without: str) -> Path:
    """Find the state database, or end with status 2 where the ledger is in memory.

    Args:
        settings: of the daemon.
        state_dir: as the daemon was given it.
        without: what cannot be done then, and what would be right.
    """
    path = state_path(settings, state_dir)
    if path is None:
        fail(f"ledger.url is {settings.ledger.url}: {without}", status=2)
    return path


def fail(message: str, *, status: int) -> NoReturn:
    """Say on stderr what is wrong, and end.

    Args:
        message: with what would be right.
        status: 1 failed at run time; 2 wrong usage or configuration.
    """
    tell(message)
    raise typer.Exit(status)


def tell(message: str) -> None:
    """Say something that is no result, so that what is on stdout can be piped."""
    print(message, file=sys.stderr)


@contextmanager
def opened_database(path: Path) -> Iterator[Database]:
    """The state database beside a daemon that may be writing to it; a fault ends with status 1."""
    configure_logging(level="error")
    # Its log is a daemon's; here an error is the command's result.
    logging.getLogger("router.storage").disabled = True
    try:
        with Database.open(path, repair=False) as database:
            try:
                yield database
            except StorageError as error:
                fail(_explained(str(error), database), status=1)
    except StorageError as error:
        fail(str(error), status=1)


def _explained(told: str, database: Database) -> str:
    """Add what SQLite leaves out: of many faults it says that it cannot open the file."""
    for each in (database.path, database.path.parent):
        if os.path.exists(each) and not os.access(each, os.R_OK | os.W_OK):  # noqa: PTH110
            return f"{told}: this user may not read and write {each}"
    error = database.status().last_error
    return told if error is None or error in told else f"{told} ({error})"


def exists_or_exit(path: Path) -> bool:
    """Whether the file is there; where nobody can tell, end with status 1."""
    try:
        return path.exists()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", status=1)


def existing_or_exit(path: Path) -> Path:
    """The same path if the file is there, or end with status 1."""
    if exists_or_exit(path):
        return path
    fail(
        f"{path} is not there: no daemon has kept its state in it, and no key was made; if a daemon"
        " runs, give this command its --state-dir, or start it in the same folder",
        status=1,
    )
