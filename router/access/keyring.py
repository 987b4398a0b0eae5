"""The keys that count now, from the configuration and from the state database."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from router.access.audit import KeyAudit
from router.access.identity import ANONYMOUS, Identity
from router.access.known import (
    KnownKey,
    KnownKeys,
    StoredKeys,
    configured_keys,
    merged,
    with_defaults,
)
from router.access.secret import digest_of, invalid_key, is_bearer, presented_key
from router.config.settings import OrganizationSettings
from router.errors import InvalidApiKey, MissingApiKey
from router.log import get_logger

__all__ = ["ANONYMOUS", "Badge", "Identity", "Keyring"]

Listener = Callable[[tuple[OrganizationSettings, ...]], None]


class _Mode(enum.Enum):
    """Who is let in."""

    UNREAD = "by configured keys; what the database holds is not known yet"
    KEYS = "by a key"
    LOST = "nobody: there are no keys, but there were some, or may have been"
    ANONYMOUS = "everybody: no key exists anywhere"


class Badge:
    """What one connection has shown, so that its key is hashed and looked up once.

    Attributes:
        shown: the `authorization` header; it alone decided.
        known: the key in it.
        keys: those that counted then: any change of them makes others of them.
    """

    __slots__ = ("keys", "known", "shown")

    def __init__(self) -> None:
        self.shown: str | None = None
        self.known: KnownKey | None = None
        self.keys: KnownKeys | None = None


class Keyring:
    """Owner of all keys; the event loop's thread alone uses it.

    It serves anonymously only while it knows that no key exists anywhere. A key that is expired
    or revoked exists, so that revoking the last one does not open the house; and as long as the
    database has not been read, or is gone or was set aside as damaged, nobody knows.

    Args:
        organizations: those of the configuration.
        stored: whether a state database may hold keys too; nothing is anonymous until
            `refresh_from` has told what is in it.
        audit: where made, revoked and refused keys are told of.
    """

    def __init__(
        self,
        organizations: Sequence[OrganizationSettings] = (),
        *,
        stored: bool = False,
        audit: KeyAudit | None = None,
    ) -> None:
        self._log = get_logger("router.access")
        self._audit = audit or KeyAudit()
        self._listener: Listener | None = None
        self._organizations = tuple(organizations)
        self._configured = configured_keys(organizations)
        self._stored: StoredKeys | None = None if stored else StoredKeys()
        self._had_stored = False
        self._keys = dict(self._configured)
        self._mode = _Mode.UNREAD
        self._anonymous = False
        self._apply()

    def identify(
        self,
        authorization: str | None,
        x_api_key: str | None,
        now: float,
        badge: Badge | None = None,
    ) -> Identity:
        """Whose request it is.

        Args:
            authorization: the header of that name, `Bearer <key>`.
            x_api_key: the header of that name.
            now: seconds since the epoch.
            badge: what the same connection has shown before.

        Raises:
            MissingApiKey: there is no key.
            InvalidApiKey: there is one, and it does not count.
        """
        if self._anonymous:
            # A key that is sent all the same is ignored: OpenAI's clients always send one.
            return ANONYMOUS
        if badge is not None and badge.shown == authorization and badge.keys is self._keys:
            known = badge.known
            if known is not None and now < known.expires_at:
                return known.identity
        known = self._look_up(authorization, x_api_key, now)
        if badge is not None and is_bearer(authorization):
            badge.shown, badge.known, badge.keys = authorization, known, self._keys
        return known.identity

    def known(
        self, authorization: str | None, x_api_key: str | None, now: float
    ) -> Identity | None:
        """Whose key it is, where it counts: for what a refusal tells, so nobody is told of it."""
        try:
            known = self._keys.get(digest_of(presented_key(authorization, x_api_key)))
        except (MissingApiKey, InvalidApiKey):
            return None
        return known.identity if known is not None and known.counts(now) else None

    def _look_up(self, authorization: str | None, x_api_key: str | None, now: float) -> KnownKey:
        try:
            key = presented_key(authorization, x_api_key)
        except InvalidApiKey:
            self._audit.refused(None, now)
            raise
        # How long a look-up takes may depend on the digest, which nobody can steer towards that
        # of a key without knowing the key; the key itself is only hashed, in a time that depends
        # on its length alone. So there is nothing to learn, and no comparison to pad.
        known = self._keys.get(digest_of(key))
        if known is None or not known.counts(now):
            self._audit.refused(known, now)
            raise invalid_key()
        return known

    def configure(self, organizations: Sequence[OrganizationSettings]) -> None:
        """Take over the organizations of a new configuration."""
        before = self._configured
        self._organizations = tuple(organizations)
        self._configured = configured_keys(organizations)
        self._audit.changed(before, self._configured, "configuration")
        self._apply()

    def refresh_from(self, stored: StoredKeys) -> None:
        """Take over what the state database tells now."""
        before, self._stored = self._stored, stored
        self._had_stored = self._had_stored or bool(stored.keys)
        if before is None:
            counts = {"configured": len(self._configured), "stored": len(stored.keys)}
            self._log.info("keys_read", **counts)
        else:
            self._audit.changed(before.keys, stored.keys, "database")
        self._apply()

    def on_change(self, listener: Listener) -> None:
        """Have `listener` told of all organizations, now and whenever keys or they change.

        It is called before a new key can be used, so that no request comes before its limits.
        """
        self._listener = listener
        listener(self.organizations)

    @property
    def anonymous(self) -> bool:
        """Whether everybody is let in."""
        return self._anonymous

    @property
    def organizations(self) -> tuple[OrganizationSettings, ...]:
        """All of them; one that only the database knows has the limits that are the default."""
        stored = self._stored.organizations if self._stored else ()
        return with_defaults(self._organizations, stored)

    def active(self, now: float) -> int:
        """How many keys may be used."""
        return sum(known.counts(now) for known in self._keys.values())

    def tell_unlogged(self, now: float) -> None:
        """Have the audit catch up with refusals that it only counted."""
        self._audit.tell_unlogged(now)

    def _apply(self) -> None:
        if self._listener is not None:
            self._listener(self.organizations)
        self._keys = merged(self._configured, self._stored.keys if self._stored else {})
        before, self._mode = self._mode, self._present_mode()
        self._anonymous = self._mode is _Mode.ANONYMOUS
        if self._mode is not before:
            self._tell_mode(before)

    def _present_mode(self) -> _Mode:
        if self._keys:
            return _Mode.KEYS
        if self._stored is None:
            return _Mode.UNREAD
        # No command deletes a key: a table that is empty again is not the one that was read.
        lost = self._stored.lost or self._had_stored
        return _Mode.LOST if lost else _Mode.ANONYMOUS

    def _tell_mode(self, before: _Mode) -> None:
        if self._mode is _Mode.ANONYMOUS:
            self._log.warning(
                "anonymous",
                consequence="no key exists anywhere: whoever reaches the port may use every model",
                remedy="router keys create --org NAME, or organizations in the configuration",
            )
        elif self._mode is _Mode.LOST:
            self._log.error(
                "keys_lost",
                consequence="every request is refused: keys that the database held are gone, or"
                " may be",
                remedy="router keys create --org NAME; or, to serve without keys, restart: after"
                " you have deleted the damaged file that was set aside, if there is one",
            )
        elif before is _Mode.ANONYMOUS:
            self._log.warning("keys_required", consequence="requests without a key are refused")
