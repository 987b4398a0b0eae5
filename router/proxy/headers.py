"""Which headers cross, in either direction: one pass over each head.

RFC 9110 section 7.6.1: what belongs to one connection (hop-by-hop, or named by `Connection`) ends
there. Beyond that a client's credentials, its cookies and what proxies told of its address stay
with the router.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import getrandbits

Headers = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_UPSTREAM = _HOP_BY_HOP | {
    # written anew
    b"host",
    b"content-length",
    b"x-request-id",
    b"expect",
    # the router reads the answer, so it must not be compressed (vLLM never does)
    b"accept-encoding",
    # the client's own secrets
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-auth-token",
    b"cookie",
    # where the client is, is nobody's business behind the router
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
}
_NOT_DOWNSTREAM = _HOP_BY_HOP | {
    b"content-length",
    b"x-request-id",
    b"x-router-service",
    b"server-timing",
    # what is left is counted by the router
    b"x-ratelimit-limit-requests",
    b"x-ratelimit-limit-tokens",
    b"x-ratelimit-remaining-requests",
    b"x-ratelimit-remaining-tokens",
    b"x-ratelimit-reset-requests",
    b"x-ratelimit-reset-tokens",
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_MEMO_LIMIT = 1024
_MEMO_NAME_BYTES = 48


def request_id(sent: bytes | None) -> bytes:
    """The client's own id where it is 1-128 of `A-Z a-z 0-9 . _ : -`, else a new one.

    An id names a request to people and opens nothing, so its randomness need not be secret.
    """
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return b"%032x" % getrandbits(128)


class HeaderFilter:
    """Splits a head into the lines that cross and the values that the router reads itself.

    A name's fate is worked out once for each spelling and kept, for so many short names.

    Args:
        dropped: names, in lower case, that do not cross.
        noted: names whose values are wanted, whether they cross or not; `connection` always is.
            Where a name comes more than once, its values are joined by commas.
    """

    def __init__(self, dropped: frozenset[bytes], noted: frozenset[bytes]) -> None:
        self._dropped = dropped
        self._noted = noted | {b"connection"}
        self._fates: dict[bytes, tuple[bool, bytes | None]] = {}

    def split(self, headers: Headers) -> tuple[bytes, dict[bytes, bytes]]:
        """(lines that cross, each ended by CRLF; lower-case name -> value of the noted ones)."""
        lines: list[bytes] = []
        noted: dict[bytes, bytes] = {}
        fates = self._fates
        for name, value in headers:
            fate = fates.get(name)
            crosses, key = self._fate(name) if fate is None else fate
            if crosses:
                lines += (name, b": ", value, b"\r\n")
            if key is not None:
                noted[key] = value if key not in noted else b"%b,%b" % (noted[key], value)
        if b"connection" in noted:
            named = _named(headers)
            if named:
                return self._without(headers, named), noted
        return b"".join(lines), noted

    def _fate(self, name: bytes) -> tuple[bool, bytes | None]:
        lower = name.lower()
        fate = (lower not in self._dropped, lower if lower in self._noted else None)
        if len(name) <= _MEMO_NAME_BYTES and len(self._fates) < _MEMO_LIMIT:
            self._fates[name] = fate
        return fate

    def _without(self, headers: Headers, named: set[bytes]) -> bytes:
        dropped = self._dropped | named
        return b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() not in dropped
        )


def _named(headers: Headers) -> set[bytes]:
    """What `Connection` headers name, beyond its own options."""
    options = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    return options - {b"", b"close", b"keep-alive"}


def to_upstream() -> HeaderFilter:
    """A filter for requests."""
    return HeaderFilter(
        _NOT_UPSTREAM,
        frozenset(
            {
                b"authorization",
                b"content-length",
                b"content-type",
                b"expect",
                b"x-api-key",
                b"x-forwarded-for",
                b"x-request-id",
            }
        ),
    )


def to_downstream() -> HeaderFilter:
    """A filter for answers."""
    return HeaderFilter(
        _NOT_DOWNSTREAM,
        frozenset({b"content-length", b"content-type", b"retry-after", b"transfer-encoding"}),
    )
