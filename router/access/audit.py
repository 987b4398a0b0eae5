"""The record of keys: made, revoked, refused. It names keys by their ids, never by themselves."""

from __future__ import annotations

from router.access.known import KnownKey, KnownKeys
from router.log import get_logger

_MINUTE_S = 60.0
_REFUSALS_A_MINUTE = 30


class KeyAudit:
    """Writes the lines; refusals only so many a minute, and how many more there were.

    Args:
        refusals_a_minute: lines, beyond which they are counted.
    """

    def __init__(self, refusals_a_minute: int = _REFUSALS_A_MINUTE) -> None:
        self._log = get_logger("router.audit")
        self._limit = refusals_a_minute
        self._minute_began = 0.0
        self._lines = 0
        self._unlogged = 0

    def changed(self, before: KnownKeys, after: KnownKeys, source: str) -> None:
        """Tell which keys were made and which ended between two readings of a source."""
        for digest in after.keys() - before.keys():
            if not after[digest].revoked and not after[digest].fault:
                self._log.info("key_made", source=source, **_names(after[digest]))
        for digest, known in before.items():
            now_known = after.get(digest)
            if now_known is None:
                self._log.info("key_removed", source=source, **_names(known))
            elif now_known.revoked and not known.revoked:
                self._log.info("key_revoked", source=source, **_names(known))

    def refused(self, known: KnownKey | None, now: float) -> None:
        """Tell of a key that was sent and does not count; None: nobody knows it."""
        self.tell_unlogged(now)
        if self._lines >= self._limit:
            self._unlogged += 1
            return
        self._lines += 1
        if known is None:
            self._log.warning("key_refused", reason="unknown")
        else:
            self._log.warning("key_refused", reason=_reason(known), **_names(known))

    def tell_unlogged(self, now: float) -> None:
        """When a minute is over, begin another, and say how many refusals had no line."""
        if 0 <= now - self._minute_began < _MINUTE_S:
            return
        self._minute_began, self._lines = now, 0
        if self._unlogged:
            self._log.warning("keys_refused_unlogged", count=self._unlogged)
            self._unlogged = 0


def _reason(known: KnownKey) -> str:
    if known.revoked:
        return "revoked"
    return "unusable" if known.fault else "expired"


def _names(known: KnownKey) -> dict[str, str | None]:
    return {"key_id": known.identity.key_id, "organization": known.identity.organization}
