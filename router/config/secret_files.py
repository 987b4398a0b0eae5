"""`api_key_file` and its like: a secret that lies in a file of its own (a Docker secret)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from router.config.document import Plain
from router.config.files import read_file
from router.config.problems import Location
from router.config.schema import SECRETS

_MAX_BYTES = 64 * 1024

Complaint = tuple[Location, str]


def read_secret(path: Path) -> str:
    """Read a secret, without white space around it.

    Raises:
        ValueError: unreadable, empty, too large or not UTF-8; the message does not repeat it.
    """
    try:
        content = read_file(path, _MAX_BYTES + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        shown = str(path).replace("\0", "\\0")
        raise ValueError(
            f"the file {shown} cannot be read ({why}); write the path of a readable file"
        ) from None
    if not text or len(content) > _MAX_BYTES:
        what = "larger than 64 KiB" if text else "empty"
        raise ValueError(f"the file {path} is {what}; write the secret alone into it")
    return text


def put_in_secrets(tree: Plain, folder: Path) -> tuple[Complaint, ...]:
    """Replace every `NAME_file` of the tree by NAME and what the file holds.

    Paths are relative to `folder`. Returns what is wrong, by location.
    """
    complaints: list[Complaint] = []
    for *path, name in SECRETS:
        for location, section in _mappings(tree, tuple(path), ()):
            message = _put_in(section, name, folder)
            if message is not None:
                complaints.append(((*location, f"{name}_file"), message))
    return tuple(complaints)


def _put_in(section: dict[str, Plain], name: str, folder: Path) -> str | None:
    path = section.pop(f"{name}_file", None)
    if path is None or path == "":
        return None
    if section.get(name) is not None and section[name] != "":
        return f"stands beside {name}; remove one of them"
    if not isinstance(path, str):
        return "must be a text: the path of a file that holds the secret"
    try:
        section[name] = read_secret(folder / path)
    except ValueError as error:
        return str(error)
    return None


def _mappings(
    tree: Plain, path: tuple[str, ...], location: Location
) -> Iterator[tuple[Location, dict[str, Plain]]]:
    if not path:
        if isinstance(tree, dict):
            yield location, tree
    elif path[0] == "*":
        for index, item in enumerate(tree if isinstance(tree, list) else ()):
            yield from _mappings(item, path[1:], (*location, index))
    elif isinstance(tree, dict):
        yield from _mappings(tree.get(path[0]), path[1:], (*location, path[0]))
