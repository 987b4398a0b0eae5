"""What runs, told to other processes: a file beside the state database, without any secret."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from router.config.redacted import Form, redacted
from router.config.settings import Settings

_FORMAT = 1


class SnapshotError(Exception):
    """There is no snapshot that could be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a daemon wrote when it took a configuration over.

    Attributes:
        settings: as `redacted` has them.
        generation: of the configuration, from 1.
        since: when it was taken over, ISO 8601, UTC.
        pinned: keys that the daemon's command line decided, not the file.
    """

    settings: dict[str, Form]
    generation: int
    since: str
    pinned: tuple[str, ...] = ()


def snapshot_path(state: Path) -> Path:
    """Where the daemon of a state database writes what it runs."""
    return state.with_name(f"{state.name}.running.json")


def write_snapshot(
    path: Path, settings: Settings, *, generation: int = 1, pinned: Collection[str] = ()
) -> None:
    """Replace the snapshot at once; only its owner can read it.

    Raises:
        OSError: the folder cannot be written to.
    """
    content = {
        "format": _FORMAT,
        "generation": generation,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "pinned": list(pinned),
        "settings": redacted(settings),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 -- a descriptor
        json.dump(content, file, indent=1)
    unfinished.replace(path)


def read_snapshot(path: Path) -> Snapshot:
    """What the daemon wrote last.

    Raises:
        SnapshotError: nothing there, not to be read, or of another release.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SnapshotError(f"{path} is not there: no daemon with this state runs") from None
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise SnapshotError(f"{path} was not written by this release; reload or restart the daemon")
    return _snapshot(path, content)


def _snapshot(path: Path, content: dict[str, object]) -> Snapshot:
    match content:
        case {
            "settings": dict(settings),
            "generation": int(generation),
            "since": str(since),
            "pinned": list(pinned),
        }:
            return Snapshot(settings, generation, since, tuple(str(key) for key in pinned))
    raise SnapshotError(f"{path} is damaged; reload or restart the daemon, it writes it anew")


def remove_snapshot(path: Path) -> None:
    """Nothing runs any more; a file that cannot be removed is left."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
