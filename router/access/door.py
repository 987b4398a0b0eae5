"""The door: how often an address may knock, then who it is. Nothing expensive comes before it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from router.access.identity import Identity
from router.access.keyring import Badge, Keyring
from router.errors import RateLimitExceeded
from router.limits.rate import RateLimiter


class Door:
    """What every request for inference, and for the model list, passes first.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, keyring: Keyring, limiter: RateLimiter, clock: Callable[[], float]) -> None:
        self._keyring = keyring
        self._limiter = limiter
        self._clock = clock

    def enter(
        self,
        client: int,
        authorization: str | None,
        x_api_key: str | None,
        badge: Badge | None = None,
    ) -> Identity:
        """Who asks.

        Args:
            client: what the client's address is counted under, see `router.limits.rate.key_of`.
            authorization: the header of that name, as sent.
            x_api_key: the header of that name, as sent.
            badge: what the same connection has shown before.

        Raises:
            RateLimitExceeded: the address asks too often.
            MissingApiKey, InvalidApiKey: a key is needed, and this is none.
        """
        wait_s = self._limiter.check(client, monotonic())
        if wait_s is not None:
            raise _too_fast(wait_s)
        return self._keyring.identify(authorization, x_api_key, self._clock(), badge)

    def count(self, client: int) -> None:
        """Count a request that goes no further, whoever asks; `enter` saves the call.

        Raises:
            RateLimitExceeded: the address asks too often.
        """
        wait_s = self._limiter.check(client, monotonic())
        if wait_s is not None:
            raise _too_fast(wait_s)

    def identify(
        self, authorization: str | None, x_api_key: str | None, badge: Badge | None = None
    ) -> Identity:
        """Who asks, now, of one that has been let in before; it counts for no rate.

        Raises:
            MissingApiKey, InvalidApiKey: the key does not count any more.
        """
        return self._keyring.identify(authorization, x_api_key, self._clock(), badge)

    def known(self, authorization: str | None, x_api_key: str | None) -> Identity | None:
        """Whose key it is, of one that is refused; None where it does not count."""
        return self._keyring.known(authorization, x_api_key, self._clock())


def _too_fast(wait_s: float) -> RateLimitExceeded:
    return RateLimitExceeded(
        "Your address sends requests faster than this router takes them from one address.",
        retry_after_s=wait_s,
    )
