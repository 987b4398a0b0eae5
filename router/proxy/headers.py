"""Which headers cross, in either direction: one pass over each head.

RFC 9110 section 7.6.1: what belongs to one connection (hop-by-hop, or named by `Connection`) ends
there. Beyond that a client's credentials, its cookies and what proxies told of its address stay
with the router.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import getrandbits

PASSED = b"x-router-via"
"""Which routers a request has come through: one line each, with what the router calls itself. The
lines of others cross like any other header, so that a request that comes round is known again."""

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
    b"x-goog-api-key",
    b"cookie",
    # where the client is, is nobody's business behind the router
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"client-ip",
    b"fastly-client-ip",
    b"forwarded",
    b"true-client-ip",
    b"via",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-envoy-external-address",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-original-forwarded-for",
    b"x-real-ip",
    # where in an engine a request runs (vLLM 0.32.0) is not the client's to say
    b"x-data-parallel-rank",
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
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id(sent: bytes | None) -> bytes:
    """The client's own id where it is 1-128 of `A-Z a-z 0-9 . _ : -`, else a new one.

    An id names a request to people and opens nothing, so its randomness need not be secret.
    """
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return b"%032x" % getrandbits(128)


def trace_of(sent: bytes | None) -> bytes | None:
    """The client's `traceparent` where it is one (W3C Trace Context), for the log; else None."""
    return sent if sent is not None and _TRACEPARENT.fullmatch(sent) else None


class HeaderFilter:
    """Splits a head into the lines that cross and the values that the router reads itself.

    Names come in lower case, and go on so: HTTP does not care (RFC 9110, section 5.1).

    Args:
        dropped: names, in lower case, that do not cross.
    """

    def __init__(self, dropped: frozenset[bytes]) -> None:
        self._dropped = dropped

    def split(self, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, dict[bytes, bytes]]:
        """(lines that cross, each ended by CRLF; lower-case name -> value of every header).

        Where a name comes more than once, its values are joined by commas in the mapping.
        """
        noted = dict(headers)
        dropped = self._dropped
        if len(noted) < len(headers):
            return self._split_repeated(headers)
        if b"connection" in noted:
            named = _named(headers)
            if named:
                dropped = dropped | named
        lines = [b"%b: %b\r\n" % line for line in noted.items() if line[0] not in dropped]
        return b"".join(lines), noted

    def _split_repeated(
        self, headers: list[tuple[bytes, bytes]]
    ) -> tuple[bytes, dict[bytes, bytes]]:
        dropped = self._dropped | _named(headers)
        noted: dict[bytes, bytes] = {}
        lines: list[bytes] = []
        for name, value in headers:
            noted[name] = b"%b,%b" % (noted[name], value) if name in noted else value
            if name not in dropped:
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines), noted


def _named(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """What `Connection` headers name, beyond its own options."""
    options = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return options - {b"", b"close", b"keep-alive"}


def to_upstream() -> HeaderFilter:
    """A filter for requests."""
    return HeaderFilter(_NOT_UPSTREAM)


def to_downstream() -> HeaderFilter:
    """A filter for answers."""
    return HeaderFilter(_NOT_DOWNSTREAM)
