"""Owns which configuration runs: its generation, and why it is not a newer one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from router.config import ConfigurationError, Settings
from router.config.diff import Diff, diff
from router.config.snapshot import remove_snapshot, write_snapshot
from router.events import EventLog, Severity
from router.log import get_logger

_QUIET_S = 0.3
_PATIENCE_S = 2.0
_MOST_TOLD = 50
_MOST_SAID = 3

_log = get_logger("router.reload")


class Reloader:
    """Reads the settings again when asked to, and has them taken over if they may be.

    Settings are taken over as a whole or not at all: a file that is wrong, or that changes what
    needs a restart, leaves everything as it was. All methods belong to the event loop's thread.

    Args:
        settings: that run; generation 1.
        read: loads them again, in a thread; raises ConfigurationError where they are wrong.
        apply: puts new settings into effect at once, in the loop's thread; must not fail.
        snapshot: file that tells other processes what runs; None: none is written.
        pinned: keys that the command line decides, whatever the file says: `server.port`.
        events: told what people should know of it.
        quiet_s: a reload begins when no request for one has come for so long,
        patience_s: or so long after the first.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        apply: Callable[[Settings], None],
        *,
        snapshot: Path | None = None,
        pinned: Collection[str] = (),
        events: EventLog | None = None,
        quiet_s: float = _QUIET_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._settings = settings
        self._read = read
        self._apply = apply
        self._snapshot = snapshot
        self._pinned = tuple(pinned)
        self._events = EventLog() if events is None else events
        self._quiet_s = quiet_s
        self._patience_s = patience_s
        self._requested = asyncio.Event()
        self._generation = 1
        self._last_reload = time.time()
        self._last_error: str | None = None

    # -- what runs -----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Those that run."""
        return self._settings

    @property
    def generation(self) -> int:
        """How many configurations have run, this one included; from 1."""
        return self._generation

    @property
    def last_error(self) -> str | None:
        """Why the file that was read last does not run; None: it does."""
        return self._last_error

    @property
    def last_reload(self) -> float:
        """When the file was last read and found to be what runs, or made to be; Unix seconds."""
        return self._last_reload

    # -- a reload ------------------------------------------------------------------------------

    def request(self) -> None:
        """Ask for a reload; many requests in a short time are one."""
        self._requested.set()

    async def run(self) -> None:
        """Reload whenever asked to, until cancelled."""
        await self._write_snapshot()
        try:
            while True:
                await self._requested.wait()
                await self._until_quiet()
                await self._reload()
        finally:
            if self._snapshot is not None:
                remove_snapshot(self._snapshot)

    async def _until_quiet(self) -> None:
        """Let a storm of requests pass: all that came before the end of this are one."""
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience_s
        while self._requested.is_set() and now() < deadline:
            self._requested.clear()
            await asyncio.sleep(self._quiet_s)
        self._requested.clear()

    async def _reload(self) -> None:
        try:
            settings, change = await asyncio.to_thread(self._compare)
        except ConfigurationError as error:
            self._refuse_problems(error)
            return
        if change.refused:
            self._refuse_change(change)
            return
        self._last_error = None
        self._last_reload = time.time()
        if change.is_empty:
            _log.info("reload_changed_nothing", generation=self._generation)
            return
        self._apply(settings)
        self._settings = settings
        self._generation += 1
        lines = change.lines()
        _log.info(
            "reloaded",
            generation=self._generation,
            changes=lines[:_MOST_TOLD],
            untold=max(0, len(lines) - _MOST_TOLD),
        )
        self._tell(f"reloaded, generation {self._generation}: {_shortened(lines)}", Severity.INFO)
        await self._write_snapshot()

    def _compare(self) -> tuple[Settings, Diff]:
        settings = self._read()
        return settings, diff(self._settings, settings)

    # -- why not -------------------------------------------------------------------------------

    def _refuse_problems(self, error: ConfigurationError) -> None:
        problems = error.problems
        for problem in problems[:_MOST_TOLD]:
            _log.error(
                "reload_refused",
                file=problem.file,
                line=problem.line,
                key=problem.key,
                problem=problem.message,
                running_generation=self._generation,
            )
        untold = len(problems) - 1
        more = f" (and {untold} more, in the log)" if untold > 0 else ""
        self._last_error = f"{problems[0]}{more}"
        self._tell(f"refused: {self._last_error}", Severity.ERROR)

    def _refuse_change(self, change: Diff) -> None:
        for refusal in change.refused:
            _log.error(
                "reload_refused",
                key=refusal.key,
                problem=refusal.reason,
                running_generation=self._generation,
            )
        self._last_error = "; ".join(f"{each.key}: {each.reason}" for each in change.refused)
        self._tell(f"refused: {self._last_error}", Severity.ERROR)

    def _tell(self, text: str, severity: Severity) -> None:
        self._events.add("reload", "configuration", text, severity)

    async def _write_snapshot(self) -> None:
        """Tell other processes what runs; that it cannot be told is no reason to stop."""
        if self._snapshot is None:
            return
        try:
            await asyncio.to_thread(
                write_snapshot,
                self._snapshot,
                self._settings,
                generation=self._generation,
                pinned=self._pinned,
            )
        except OSError as error:
            _log.warning("snapshot_unwritten", path=str(self._snapshot), error=str(error))


def _shortened(lines: Sequence[str]) -> str:
    """The first changes, and how many more there are."""
    more = len(lines) - _MOST_SAID
    return "; ".join(lines[:_MOST_SAID]) + (f"; and {more} more" if more > 0 else "")
