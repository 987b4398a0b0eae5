"""Who may see the status pages."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from router.access.secret import digest_of
from router.api.answer import Asking
from router.config.settings import ServerSettings
from router.errors import InvalidApiKey, MissingApiKey
from router.limits.address import within


class StatusGuard:
    """Lets `server.status_allow` pass, by default loopback, and the admin key from anywhere."""

    def __init__(self, settings: Callable[[], ServerSettings]) -> None:
        self._settings = settings

    def check(self, asking: Asking) -> None:
        """Return if the caller may see the page.

        Raises:
            MissingApiKey, InvalidApiKey: it may not.
        """
        if self.is_admin(asking):
            return
        address = asking.address
        if address is not None and within(address, self._settings().status_allow):
            return
        raise self._refusal(
            asking,
            "This page is for the addresses in server.status_allow, or the admin key, and there is "
            "none: set server.admin_key_sha256, or allow your address.",
        )

    def check_admin(self, asking: Asking) -> None:
        """Return if the caller has the admin key, wherever it is.

        Raises:
            MissingApiKey, InvalidApiKey: it has not.
        """
        if self.is_admin(asking):
            return
        raise self._refusal(
            asking, "This page takes the admin key, and there is none: set server.admin_key_sha256."
        )

    def _refusal(self, asking: Asking, without_key: str) -> MissingApiKey | InvalidApiKey:
        """The error for who has not shown the admin key; `without_key`: where there is none."""
        if self._settings().admin_key_sha256 is None:
            return MissingApiKey(without_key)
        if asking.header(b"authorization") is not None:
            return InvalidApiKey("This page takes the admin key, and this is not it.")
        return MissingApiKey("This page takes the admin key: Authorization: Bearer <key>.")

    def is_admin(self, asking: Asking) -> bool:
        """Whether the request carries the admin key."""
        wanted = self._settings().admin_key_sha256
        scheme, _, key = (asking.header(b"authorization") or "").partition(" ")
        if wanted is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(digest_of(key.strip()), bytes.fromhex(wanted))
