"""Requests a second, by client address: GCRA over a table whose size never changes."""

from __future__ import annotations

import secrets
from array import array
from ipaddress import IPv6Address

from router.limits.address import Address

_WAYS = 4
_WORD_BITS = 64
_WORD = (1 << _WORD_BITS) - 1
_IPV6_HOST_BITS = 64
# As a share of a request: clients that keep exactly to the rate must not fail on rounding.
_SLACK = 0.001


def key_of(address: Address | None) -> int:
    """What counts as one client: an IPv4 address, or a whole /64 of IPv6, as a 64-bit number.

    IPv4 mapped into IPv6 is IPv4. Callers without an address (a Unix socket) are one client.
    """
    if address is None:
        return 0
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            # The networks that would look like IPv4 (0::/32) are given to nobody.
            return int(address) >> _IPV6_HOST_BITS
        address = address.ipv4_mapped
    return int(address)


class RateLimiter:
    """A token bucket for each client, kept as the time at which it will be full again.

    The table is set-associative: a client may stand in one of four slots of its own set. So a
    check costs the same however many clients there are, nothing is ever swept, grown or freed,
    and memory is 16 bytes a slot from the beginning. A client who finds no free slot takes
    that of the client nearest to a full bucket: one who is full already, in all but a flood.

    Args:
        requests_per_second: sustained rate of a client.
        burst: requests at once.
        max_entries: clients to remember; rounded up to a power of two.
    """

    def __init__(
        self, requests_per_second: float, burst: int, *, max_entries: int = 1 << 18
    ) -> None:
        sets = max(2, 1 << (-(-max_entries // _WAYS) - 1).bit_length())
        self._keys = array("Q", [0]) * (sets * _WAYS)
        self._full_at = array("d", [0.0]) * (sets * _WAYS)
        # A secret factor: nobody can pick addresses that all fall into one set.
        self._factor = secrets.randbits(_WORD_BITS) | 1
        self._shift = _WORD_BITS - (sets.bit_length() - 1)
        self.configure(requests_per_second, burst)

    def configure(self, requests_per_second: float, burst: int) -> None:
        """Take over another rate and burst; what clients have used stays used."""
        self._request_s = 1 / requests_per_second
        self._bucket_s = burst * self._request_s
        self._tolerance_s = (burst - 1 + _SLACK) * self._request_s

    def check(self, key: int, now: float) -> float | None:
        """Take a request from a client's bucket.

        Args:
            key: `key_of` the client's address.
            now: seconds of a clock that never goes back.

        Returns:
            None if the request may pass; else the seconds until one may.
        """
        first = ((key * self._factor & _WORD) >> self._shift) * _WAYS
        try:
            slot = self._keys.index(key, first, first + _WAYS)
        except ValueError:
            slot = self._take_slot(key, first)
        full_at = self._full_at[slot]
        if full_at <= now:
            self._full_at[slot] = now + self._request_s
            return None
        if full_at - now <= self._tolerance_s:
            self._full_at[slot] = full_at + self._request_s
            return None
        return self._wait(slot, now)

    @property
    def memory_bytes(self) -> int:
        """What the table takes, always."""
        return len(self._keys) * (self._keys.itemsize + self._full_at.itemsize)

    def _take_slot(self, key: int, first: int) -> int:
        times = self._full_at[first : first + _WAYS]
        slot = first + times.index(min(times))
        self._keys[slot] = key
        self._full_at[slot] = 0.0
        return slot

    def _wait(self, slot: int, now: float) -> float:
        # Emptier than empty: from before `configure` lowered the burst or raised the rate.
        self._full_at[slot] = min(self._full_at[slot], now + self._bucket_s)
        return self._full_at[slot] - now - self._tolerance_s
