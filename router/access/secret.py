"""The key itself: how one is made, what is kept of it, and where a request carries it."""

from __future__ import annotations

import hashlib
import secrets

from router.errors import InvalidApiKey, MissingApiKey

MAX_KEY_LENGTH = 512
"""Longer ones are refused unread: a hash of a long header is work for whoever has no key."""

_PREFIX = "sk-"
_KEY_BYTES = 32
_SHOWN = 7
_BEARER = "bearer "


def new_key() -> str:
    """Make a key of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def shown_part(key: str) -> str:
    """The first characters, by which people recognise a key; they give away 24 bits of 256."""
    return key[:_SHOWN]


def digest_of(key: str) -> bytes:
    """SHA-256. No salt, no stretching: keys are random, there is nothing to guess."""
    # Header bytes that are no UTF-8 arrive as lone surrogates.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def presented_key(authorization: str | None, x_api_key: str | None) -> str:
    """The key of a request: the bearer's, or else that of `x-api-key`.

    Raises:
        MissingApiKey: neither header holds one.
        InvalidApiKey: it is longer than any key.
    """
    if authorization is not None and authorization.startswith("Bearer sk-"):
        key = authorization[len(_BEARER) :].rstrip()  # as nearly all write it
        if len(key) <= MAX_KEY_LENGTH:
            return key
    key = ""
    if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
        key = authorization[len(_BEARER) :].strip()
    if not key:
        key = (x_api_key or "").strip()
    if not key:
        raise MissingApiKey("No API key was sent; send the header Authorization: Bearer <key>.")
    if len(key) > MAX_KEY_LENGTH:
        raise invalid_key()
    return key


def is_bearer(authorization: str | None) -> bool:
    """Whether this header alone decides, whatever is in `x-api-key`."""
    return authorization is not None and authorization.startswith("Bearer sk-")


def invalid_key() -> InvalidApiKey:
    """The one answer to every key that does not count; which of the reasons it is, is not told."""
    return InvalidApiKey("This API key is not valid; ask the operator of this router for one.")
