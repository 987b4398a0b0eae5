"""What a reload would change: a pure comparison of two configurations, in an operator's words.

Services, organizations, keys, routes and aliases are told by name, whatever their order in the
file; of a secret it is told that it changed, never what it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from router.config.problems import Location
from router.config.redacted import Form, redacted
from router.config.schema import is_secret
from router.config.settings import Settings

Fate = Literal["added", "removed", "changed", "replaced"]

_LISTENING = (
    "needs a restart: the listening socket cannot move under its clients; "
    "restart the router, or put the old value back"
)
_LEDGER = (
    "needs a restart: what is used and reserved is held in the old ledger; "
    "restart the router, or put the old value back"
)
NEEDS_RESTART = {"server.host": _LISTENING, "server.port": _LISTENING, "ledger.url": _LEDGER}

# A service that differs in one of these is another engine for all that is known of it.
REPLACING = frozenset({"url", "api_key", "models"})
_NAMED = ("services", "organizations", "routes", "aliases")
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is another.

    Attributes:
        key: where: `server.max_body_mb`; below a named thing only its own, `weight`.
        old: as JSON has it; None for a secret.
        new: likewise.
    """

    key: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None or self.new is None:
            return f"{self.key} changed"
        return f"{self.key} {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Item:
    """A thing with a name that came, went or changed.

    Attributes:
        key: the kind and the name: `services.chat`, `organizations.acme.keys.acme-1`.
        fate: `replaced` is a service that drains and starts anew under its name, `changed` one
            that takes the new values over where it is.
        changes: of its values; empty unless changed or replaced.
    """

    key: str
    fate: Fate
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        changes = f" ({', '.join(map(str, self.changes))})" if self.changes else ""
        return f"{self.key}: {self.fate}{changes}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that a running router cannot make.

    Attributes:
        key: of the value.
        reason: and what would be right.
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that differs; `refused` is part of `sections` too.

    Attributes:
        sections: values of `server`, `health` and the other sections.
        services: of the file.
        organizations: without their keys.
        keys: of all organizations.
        routes: by path.
        aliases: by alias.
        refused: what keeps the whole from being taken over.
    """

    sections: tuple[Change, ...] = ()
    services: tuple[Item, ...] = ()
    organizations: tuple[Item, ...] = ()
    keys: tuple[Item, ...] = ()
    routes: tuple[Item, ...] = ()
    aliases: tuple[Item, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return self == Diff()

    def lines(self) -> list[str]:
        """One for each difference, for people."""
        reasons = {refusal.key: refusal.reason for refusal in self.refused}
        told = [
            f"{change}: refused, {reasons[change.key]}" if change.key in reasons else str(change)
            for change in self.sections
        ]
        items = (*self.services, *self.organizations, *self.keys, *self.routes, *self.aliases)
        return told + [str(item) for item in items]


def diff(old: Settings, new: Settings) -> Diff:
    """What changes when `new` takes over from `old`."""
    return diff_redacted(redacted(old), redacted(new))


def diff_redacted(
    old: Mapping[str, Form], new: Mapping[str, Form], *, pinned: Collection[str] = ()
) -> Diff:
    """The same for two trees of `redacted`.

    Args:
        old: what runs.
        new: what would.
        pinned: keys of sections that are passed over.
    """
    sections = tuple(
        change
        for name in _union(old, new)
        if name not in _NAMED
        for change in _values(old.get(name), new.get(name), (name,))
        if change.key not in pinned
    )
    was, now = _by(old, "organizations", "id"), _by(new, "organizations", "id")
    routes = _by(old, "routes", "path"), _by(new, "routes", "path")
    return Diff(
        sections=sections,
        services=tuple(_services(_by(old, "services", "name"), _by(new, "services", "name"))),
        organizations=tuple(_items(was, now, ("organizations", 0))),
        keys=tuple(_keys(was, now)),
        routes=tuple(_items(*routes, ("routes", 0))),
        aliases=tuple(_items(_aliases(old), _aliases(new), ("aliases", 0))),
        refused=tuple(
            Refusal(change.key, NEEDS_RESTART[change.key])
            for change in sections
            if change.key in NEEDS_RESTART
        ),
    )


# -- named things ------------------------------------------------------------------------------

Named = Mapping[str, Mapping[str, Form]]


def _by(tree: Mapping[str, Form], section: str, name: str) -> Named:
    rows = tree.get(section)
    found = (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict))
    return {str(row.get(name)): row for row in found}


def _aliases(tree: Mapping[str, Form]) -> Named:
    aliases = tree.get("aliases")
    pairs = aliases.items() if isinstance(aliases, dict) else ()
    return {alias: {"model": model} for alias, model in pairs}


def _services(old: Named, new: Named) -> Iterator[Item]:
    for item in _items(old, new, ("services", 0)):
        replaced = any(change.key in REPLACING for change in item.changes)
        yield Item(item.key, "replaced", item.changes) if replaced else item


def _keys(old: Named, new: Named) -> Iterator[Item]:
    for organization in _union(old, new):
        was = _by(old.get(organization, {}), "keys", "id")
        now = _by(new.get(organization, {}), "keys", "id")
        kind: Location = ("organizations", 0, "keys", 0)
        yield from _items(was, now, kind, f"organizations.{organization}.keys")


def _items(old: Named, new: Named, kind: Location, prefix: str | None = None) -> Iterator[Item]:
    """What became of each, in the order of the old, then of the new.

    `kind` is where one of them stands, for the schema; `prefix` where it differs from its first.
    """
    for name in _union(old, new):
        key = f"{prefix or kind[0]}.{name}"
        if name not in new:
            yield Item(key, "removed")
        elif name not in old:
            yield Item(key, "added")
        elif changes := tuple(_fields(old[name], new[name], kind)):
            yield Item(key, "changed", changes)


def _fields(old: Mapping[str, Form], new: Mapping[str, Form], kind: Location) -> Iterator[Change]:
    """The fields that differ; the keys of an organization are told by themselves."""
    for name in _union(old, new):
        was, now = old.get(name), new.get(name)
        if was != now and name != "keys":
            yield _change(name, was, now, secret=is_secret((*kind, name)))


# -- values ------------------------------------------------------------------------------------


def _values(old: Form, new: Form, location: Location) -> Iterator[Change]:
    """Every value that differs, sections within sections followed down."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in _union(old, new):
            yield from _values(old.get(name), new.get(name), (*location, name))
        return
    key = ".".join(str(part) for part in location)
    yield _change(key, old, new, secret=is_secret(location))


def _change(key: str, old: Form, new: Form, *, secret: bool) -> Change:
    return Change(key, None, None) if secret else Change(key, _text(old), _text(new))


def _text(value: Form) -> str:
    """A value as JSON, cut where it is long."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _union(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """All keys: the old ones in their order, then what is new."""
    return list(dict.fromkeys((*old, *new)))
