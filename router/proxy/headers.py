"""Which headers cross, in either direction.

RFC 9110 section 7.6.1: what belongs to one connection (hop-by-hop, or named by `Connection`) ends
there. Beyond that a client's credentials, its cookies and what proxies told of its address stay
with the router.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

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


def request_id(sent: bytes | None) -> bytes:
    """The client's own id where it is 1-128 of `A-Z a-z 0-9 . _ : -`, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return uuid.uuid4().hex.encode()


def to_upstream(headers: Headers) -> bytes:
    """The request's end-to-end header lines, each ended by CRLF."""
    return _lines(headers, _NOT_UPSTREAM)


def to_downstream(headers: Headers) -> bytes:
    """The answer's end-to-end header lines, each ended by CRLF, without its framing."""
    return _lines(headers, _NOT_DOWNSTREAM)


def _lines(headers: Headers, dropped: frozenset[bytes]) -> bytes:
    kept: list[bytes] = []
    named: set[bytes] | None = None
    for name, value in headers:
        lower = name.lower()
        if lower not in dropped:
            kept += (name, b": ", value, b"\r\n")
        elif lower == b"connection":
            options = {option.strip().lower() for option in value.split(b",")}
            named = options - {b"close", b"keep-alive", b""} | (named or set())
    if named:
        return _lines_without(headers, dropped | named)
    return b"".join(kept)


def _lines_without(headers: Headers, dropped: frozenset[bytes]) -> bytes:
    return b"".join(
        b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() not in dropped
    )
