"""Who is logged in: random tokens in memory, bounded in number and in time."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from time import monotonic

_TOKEN_BYTES = 32
_LIFE_S = 12 * 3600.0
_MOST = 64


class Sessions:
    """Log-ins that still count. A token is kept as its digest, with the admin key it was won by.

    Args:
        clock: monotonic seconds.
        life_s: of a session, from its log-in on.
        most: sessions at once; one more ends the oldest.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        *,
        life_s: float = _LIFE_S,
        most: int = _MOST,
    ) -> None:
        self._clock = clock
        self._most = most
        self.life_s = life_s
        self._sessions: dict[bytes, tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key_sha256: str) -> str:
        """Begin a session under this admin key; its token, which is told to nobody else."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        while len(self._sessions) >= self._most:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(token)] = self._clock() + self.life_s, key_sha256
        return token

    def counts(self, token: str, key_sha256: str | None) -> bool:
        """Whether the session still counts: known, in time, and the admin key is still its own."""
        name = _digest(token)
        session = self._sessions.get(name)
        if session is None:
            return False
        until, own_key = session
        if self._clock() < until and own_key == key_sha256:
            return True
        del self._sessions[name]
        return False

    def close(self, token: str) -> None:
        """End a session; an unknown one has ended already."""
        self._sessions.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
