"""What the settings' models say of a place in the file: its keys, and what may be empty."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, TypeGuard, Union, get_args, get_origin

from router.config.document import Plain
from router.config.problems import Location
from router.config.settings import Section, Settings

# Each of these may be written as NAME_file: the path of a file that holds the value.
SECRETS: tuple[tuple[str, ...], ...] = (
    ("server", "admin_key_sha256"),
    ("ledger", "url"),
    ("organizations", "*", "keys", "*", "sha256"),
    ("services", "*", "api_key"),
)


def is_secret(location: Location) -> bool:
    """Whether the value there must not be shown."""
    return tuple("*" if isinstance(part, int) else part for part in location) in SECRETS


def known_keys(location: Location) -> tuple[str, ...]:
    """Keys that the mapping there may have; none where any may stand."""
    kind = _kind_at(location)
    if kind is None:
        return ()
    names = tuple(kind.model_fields)
    return names + tuple(f"{name}_file" for name in names if is_secret((*location, name)))


def has_default(location: Location) -> bool | None:
    """Whether the key there may be left out; None where it is no key of a section."""
    *above, last = location
    kind = _kind_at(tuple(above))
    field = None if kind is None else kind.model_fields.get(str(last))
    return None if field is None else not field.is_required()


def without_empty_sections(tree: Plain, kind: object = Settings) -> Plain:
    """Leave out sections and lists that are written but empty: they mean their defaults.

    An operator who comments out every line below `organizations:` has not made a mistake.
    """
    if isinstance(tree, list) and get_origin(kind) is tuple:
        return [without_empty_sections(item, _bare(get_args(kind)[0])) for item in tree]
    if not isinstance(tree, dict) or not _is_section(kind):
        return tree
    kept: dict[str, Plain] = {}
    for key, value in tree.items():
        field = kind.model_fields.get(key)
        below = None if field is None else _bare(field.annotation)
        if value is not None or not (_is_section(below) or get_origin(below) in {tuple, Mapping}):
            kept[key] = without_empty_sections(value, below)
    return kept


def _is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


def _kind_at(location: Location) -> type[Section] | None:
    kind: object = Settings
    for part in location:
        if isinstance(part, int):
            kind = _bare(get_args(kind)[0]) if get_origin(kind) is tuple else None
        elif _is_section(kind):
            field = kind.model_fields.get(part)
            kind = None if field is None else _bare(field.annotation)
        else:
            return None
    return kind if _is_section(kind) else None


def _bare(annotation: object) -> object:
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in {Union, types.UnionType}:
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation
