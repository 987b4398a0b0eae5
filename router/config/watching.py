"""Sees when the configuration changes: the file itself, and the files that hold its secrets.

File system events make it quick; a look at the files' status once a second makes it sure, for
events get lost: on network file systems, on a file that is mounted by itself into a container, or
in a folder that is itself replaced. Folders are watched, not files: editors rename a new file over
the old one, and Docker and Kubernetes move a symbolic link.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from router.config.document import DocumentError, Plain, parse
from router.config.files import read_file
from router.config.loading import MAX_FILE_BYTES
from router.config.schema import SECRETS
from router.log import get_logger

_LOOK_S = 1.0
_GATHER_MS = 100
_STEP_MS = 50
_MOST_SECRET_FILES = 1000
_SECRET_FILE_KEYS = frozenset(f"{path[-1]}_file" for path in SECRETS)

_log = get_logger("router.config")

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class View:
    """The watched files as they were at one time.

    Attributes:
        stamps: status of each, the configuration file first; None: not there.
        names: under which events may speak of them: as written, and with links resolved.
        folders: that hold any of these names and are there.
    """

    stamps: Mapping[Path, Stamp | None]
    names: frozenset[str]
    folders: frozenset[str]


def view_of(path: Path, environ: Mapping[str, str], last: View | None = None) -> View:
    """Look at the configuration file and those it names; it is read only if it is not as `last`.

    While it cannot be read or parsed, the files that it named before are kept.
    """
    stamp = _stamp(path)
    if last is not None and last.stamps.get(path) == stamp:
        files = tuple(last.stamps)[1:]
    else:
        found = secret_files(path, environ)
        files = tuple(last.stamps)[1:] if found is None and last is not None else found or ()
    stamps = {path: stamp} | {file: _stamp(file) for file in files if file != path}
    names = frozenset(name for file in stamps for name in (str(file), _resolved(file)))
    folders = frozenset(folder for name in names if Path(folder := str(Path(name).parent)).is_dir())
    return View(stamps, names, folders)


def secret_files(path: Path, environ: Mapping[str, str]) -> tuple[Path, ...] | None:
    """The files that the `*_file` keys of a configuration name, up to 1000; None: unreadable."""
    try:
        text = read_file(path, MAX_FILE_BYTES).decode("utf-8-sig")
        root, _ = parse(text, environ)
    except (OSError, ValueError, DocumentError):
        return None
    named = dict.fromkeys(path.parent / text for text in _secret_paths(root.plain()))
    return tuple(named)[:_MOST_SECRET_FILES]


def _secret_paths(tree: Plain) -> Iterator[str]:
    items = tree.items() if isinstance(tree, dict) else ()
    for key, value in items:
        if key in _SECRET_FILE_KEYS and isinstance(value, str) and value:
            yield value
        yield from _secret_paths(value)
    for value in tree if isinstance(tree, list) else ():
        yield from _secret_paths(value)


def _resolved(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # no file can have such a name: it holds a null
        return str(path)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    # The time of the status too: it moves with every write, and when a file becomes readable.
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


async def changed_names(folders: Iterable[str], look_s: float) -> AsyncGenerator[set[str], None]:
    """The names of which the file system tells in these folders; none when `look_s` are over.

    Raises:
        OSError: no events are to be had: a limit of the system, a folder that is gone.
        RuntimeError, ExceptionGroup: of the watcher's own thread.
    """
    # It writes a line for every event in the folder, whoever's file that is.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    watching = awatch(
        *sorted(folders),
        watch_filter=None,
        debounce=_GATHER_MS,
        step=_STEP_MS,
        rust_timeout=round(look_s * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    async with aclosing(watching) as events:
        async for changes in events:
            yield {name for _, name in changes}


class ConfigWatcher:
    """Tells of every change since it was made; make it before the file is loaded.

    Args:
        path: of the configuration file.
        environ: for the variables in the paths of secrets.
        look_s: between two looks at the files' status.
    """

    def __init__(
        self, path: Path, environ: Mapping[str, str] = os.environ, *, look_s: float = _LOOK_S
    ) -> None:
        self._path = path.absolute()
        self._environ = environ
        self._look_s = look_s
        self._view = view_of(self._path, environ)

    async def run(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` soon after each change, until cancelled; it may be called too often."""
        try:
            while True:
                await self._follow_events(on_change)
        except (OSError, RuntimeError, ExceptionGroup) as error:
            _log.warning(
                "config_polled", why=str(error), file=str(self._path), every_s=self._look_s
            )
        while True:
            await asyncio.sleep(self._look_s)
            await self._look((), on_change)

    async def _follow_events(self, on_change: Callable[[], None]) -> None:
        """Watch the folders that there are now, until they are others.

        Raises:
            OSError: no events are to be had: a limit of the system, a folder that is gone.
            RuntimeError, ExceptionGroup: of the watcher's own thread.
        """
        folders = self._view.folders
        async with aclosing(changed_names(folders, self._look_s)) as changes:
            async for names in changes:
                await self._look(names, on_change)
                if self._view.folders != folders:
                    return

    async def _look(self, changed: Collection[str], on_change: Callable[[], None]) -> None:
        last = self._view
        self._view = await asyncio.to_thread(view_of, self._path, self._environ, last)
        # Two writes within one tick of the clock have equal stamps; the event tells them apart.
        if self._view.stamps != last.stamps or not self._view.names.isdisjoint(changed):
            on_change()
