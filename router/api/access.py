"""Who may see the status pages."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from aiohttp import web

from router.access.secret import digest_of
from router.config.settings import ServerSettings
from router.errors import InvalidApiKey, MissingApiKey
from router.limits.address import Address, within


class StatusGuard:
    """Lets loopback and `server.status_allow` pass, and the admin key from anywhere."""

    def __init__(self, settings: Callable[[], ServerSettings]) -> None:
        self._settings = settings

    def check(self, request: web.BaseRequest, address: Address | None) -> None:
        """Return if the caller, who is at `address`, may see the page.

        Raises:
            MissingApiKey, InvalidApiKey: it may not.
        """
        if self.is_admin(request):
            return
        if address is not None and within(address, self._settings().status_allow):
            return
        if "authorization" in request.headers:
            raise InvalidApiKey("This page takes the admin key, and this is not it.")
        raise MissingApiKey("This page takes the admin key: Authorization: Bearer <key>.")

    def is_admin(self, request: web.BaseRequest) -> bool:
        """Whether the request carries the admin key."""
        wanted = self._settings().admin_key_sha256
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if wanted is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(digest_of(key.strip()), bytes.fromhex(wanted))
