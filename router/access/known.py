"""Keys as they are looked up, from the two places where they are written down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from router.access.identity import Identity
from router.access.scope import ModelScope
from router.config.settings import KeySettings, OrganizationSettings
from router.storage import KeyRow

_NEVER = math.inf
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key, by whose hash it is found.

    Attributes:
        identity: what it stands for.
        expires_at: first second, since the epoch, at which it no longer counts.
        revoked: it counts for nothing, whatever the time.
        fault: what is wrong with how it is written down; it has expired then. None: nothing is.
    """

    identity: Identity
    expires_at: float = _NEVER
    revoked: bool = False
    fault: str | None = None

    def counts(self, now: float) -> bool:
        """Whether it may be used now."""
        return now < self.expires_at and not self.revoked


KnownKeys = Mapping[bytes, KnownKey]
"""By the SHA-256 of the key, 32 bytes."""


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What the state database tells of keys.

    Attributes:
        keys: all of them, those that are expired or revoked too.
        organizations: whose they are.
        lost: a damaged database was set aside, so that keys may have existed that are not here.
        faults: what is wrong with rows that count for nothing because of it, by the key's id.
    """

    keys: KnownKeys = field(default_factory=dict, repr=False)
    organizations: frozenset[str] = frozenset()
    lost: bool = False
    faults: Mapping[str | None, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[KeyRow], *, lost: bool = False) -> StoredKeys:
        """Make it of the table's rows. Takes microseconds a row: for many, do it in a thread."""
        scopes: dict[tuple[str, ...], ModelScope] = {}
        keys = dict(_stored_key(row, scopes) for row in rows)
        names = (known.identity.organization for known in keys.values())
        organizations = frozenset(name for name in names if name is not None)
        faults = {known.identity.key_id: known.fault for known in keys.values() if known.fault}
        return cls(keys, organizations, lost, faults)


def configured_keys(organizations: Iterable[OrganizationSettings]) -> dict[bytes, KnownKey]:
    """The keys of the configuration."""
    scopes: dict[tuple[str, ...], ModelScope] = {}
    return {
        bytes.fromhex(key.sha256): _configured_key(organization.id, key, scopes)
        for organization in organizations
        for key in organization.keys
    }


def merged(configured: KnownKeys, stored: KnownKeys) -> dict[bytes, KnownKey]:
    """All keys; for one that is in both places the configuration counts, but a revocation stays."""
    keys = {**stored, **configured}
    for digest in configured.keys() & stored.keys():
        if stored[digest].revoked:
            keys[digest] = stored[digest]
    return keys


def with_defaults(
    configured: Iterable[OrganizationSettings], stored: Iterable[str]
) -> tuple[OrganizationSettings, ...]:
    """Every organization: one that only the database knows has the limits that are the default."""
    known = {organization.id: organization for organization in configured}
    for name in sorted(stored):
        # Not validated again: a name that somebody wrote into the table by hand ends no daemon.
        known.setdefault(name, OrganizationSettings.model_construct(id=name))
    return tuple(known.values())


def _stored_key(row: KeyRow, scopes: dict[tuple[str, ...], ModelScope]) -> tuple[bytes, KnownKey]:
    """A row and what it is found by. One that makes no sense exists, and never counts."""
    identity = Identity(row.organization, row.id, row.priority, _scope(row.models, scopes))
    revoked = row.revoked_at is not None
    digest = _digest(row.sha256)
    if digest is None:
        # Found by what no key's digest is: nobody can show it.
        fault = "sha256 is not 64 hexadecimal digits"
        return row.sha256.encode(), KnownKey(identity, -_NEVER, revoked, fault)
    if not row.models:
        fault = 'models is not a list of patterns, such as ["*"]'
        return digest, KnownKey(identity, -_NEVER, revoked, fault)
    return digest, KnownKey(identity, _NEVER if row.expires_at is None else row.expires_at, revoked)


def _digest(text: str) -> bytes | None:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    return digest if len(digest) == _DIGEST_BYTES else None


def _configured_key(
    organization: str, key: KeySettings, scopes: dict[tuple[str, ...], ModelScope]
) -> KnownKey:
    identity = Identity(organization, key.id, key.priority, _scope(key.models, scopes))
    return KnownKey(identity, _NEVER if key.expires is None else key.expires.timestamp())


def _scope(patterns: tuple[str, ...], scopes: dict[tuple[str, ...], ModelScope]) -> ModelScope:
    scope = scopes.get(patterns)
    if scope is None:
        scope = scopes[patterns] = ModelScope(patterns)
    return scope
