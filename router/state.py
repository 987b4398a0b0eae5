"""What outlives a request, and most of it the process: the database, the ledger, the keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from router.access.keyring import Keyring
from router.access.watcher import KeyWatcher
from router.config import Settings
from router.config.settings import OrganizationSettings
from router.ledger import Ledger, Limits, MemoryLedger, SqliteLedger
from router.log import get_logger
from router.storage import Database, StorageError

Ended = Callable[[asyncio.Task[None]], None]

_CLAIM_S = 1.0
_REPEAT_S = 60.0

_log = get_logger("router.state")


class State:
    """Opens, runs and closes the three in their order.

    Args:
        settings: for the organizations, their limits and their keys.
        path: of the database; None keeps usage in memory and knows no stored keys.

    Raises:
        StorageError: the file is another daemon's, or of a newer release.
    """

    def __init__(self, settings: Settings, path: Path | None) -> None:
        self.database = _opened(path) if path is not None else None
        self.keyring = Keyring(settings.organizations, stored=self.database is not None)
        self.ledger: Ledger
        if self.database is None:
            self.ledger, self._watcher = MemoryLedger({}), None
        else:
            self.ledger = SqliteLedger(self.database, {})
            self._watcher = KeyWatcher(self.keyring, self.database)
        self.keyring.on_change(self._set_limits)
        self._tasks: list[asyncio.Task[None]] = []

    def configure(self, settings: Settings) -> None:
        """Take over the organizations of new settings."""
        self.keyring.configure(settings.organizations)

    def _set_limits(self, organizations: Sequence[OrganizationSettings]) -> None:
        self.ledger.configure({each.id: limits_of(each) for each in organizations})

    async def start(self, on_end: Ended) -> None:
        """Take over what an earlier process left, and keep it up to date from now on.

        Args:
            on_end: told of a task that does so once it ends: before `close` that is a fault.
        """
        await self.ledger.start(time.time())
        self._begin(self.ledger.run(), "ledger", on_end)
        if self._watcher is not None:
            await self._watcher.start()
            self._begin(self._watcher.run(), "keys", on_end)
        if self.database is not None:
            self._begin(_keep_claimed(self.database), "claim", on_end)

    def _begin(self, work: Coroutine[Any, Any, None], name: str, on_end: Ended) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(on_end)
        self._tasks.append(task)

    async def close(self) -> bool:
        """Leave everything on disk; whether all usage is there. Takes ten seconds at most."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        saved = await self.ledger.close(time.time())
        if self.database is None:
            return saved
        if saved and self._watcher is not None:
            await self._watcher.close()
        saved = await asyncio.to_thread(self.database.close) and saved
        if not saved:
            _log.critical(
                "ledger_unsaved",
                error=self.database.status().last_error or "the disk does not answer",
                consequence="what was used since the last write to the state database is lost",
            )
        return saved


def _opened(path: Path) -> Database:
    """Open the file as its one daemon; a disk at fault now is tried again by the database itself.

    Raises:
        StorageError: another daemon has the file, or a newer release wrote it.
    """
    database = Database.open(path)
    try:
        database.claim()
    except OSError as error:
        _tell_unclaimed(path, error)
    except StorageError:
        database.close()
        raise
    return database


async def _keep_claimed(database: Database) -> None:
    """Notice that the lock was deleted before a second daemon does; else tell, once a minute."""
    told_at = time.monotonic()
    failing = False
    while True:
        await asyncio.sleep(_CLAIM_S)
        try:
            if await asyncio.to_thread(database.renew_claim):
                _log.warning("state_claimed_again", path=str(database.path))
            failing = False
        except (StorageError, OSError) as error:
            if not failing or time.monotonic() - told_at >= _REPEAT_S:
                failing, told_at = True, time.monotonic()
                _tell_unclaimed(database.path, error)


def _tell_unclaimed(path: Path, error: Exception) -> None:
    _log.error(
        "state_unclaimed",
        path=str(path),
        error=str(error),
        consequence="two routers on one database undo what the other writes of usage",
    )


def limits_of(organization: OrganizationSettings) -> Limits:
    """What an organization may use."""
    return Limits(
        organization.daily_tokens, organization.monthly_tokens, organization.daily_requests
    )
