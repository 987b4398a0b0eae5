"""`api_key_file` and its like: a secret that lies in a file of its own (a Docker secret)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class FromFiles:
    """What `put_in_secrets` did.

    Attributes:
        complaints: what is wrong with the files, by location.
        paths: of the files that were read, by the location of the secret that each holds.
    """

    complaints: tuple[Complaint, ...]
    paths: Mapping[Location, Path]

    def as_written(self, complaint: Complaint) -> Complaint:
        """Tell what is wrong with a secret by the key that the operator wrote, and its file."""
        location, message = complaint
        path = self.paths.get(location)
        if path is None:
            return complaint
        return file_key(location), f"what the file {path} holds is wrong: {message}"


def file_key(location: Location) -> Location:
    """Where the file of a value would be named: `NAME_file` beside NAME."""
    return (*location[:-1], f"{location[-1]}_file")


def put_in_secrets(tree: Plain, folder: Path) -> FromFiles:
    """Replace every `NAME_file` of the tree by NAME and what the file holds.

    Paths are relative to `folder`.
    """
    complaints: list[Complaint] = []
    paths: dict[Location, Path] = {}
    for *above, name in SECRETS:
        for location, section in _mappings(tree, tuple(above), ()):
            secret = (*location, name)
            try:
                path = _put_in(section, name, folder)
            except ValueError as error:
                complaints.append((file_key(secret), str(error)))
            else:
                if path is not None:
                    paths[secret] = path
    return FromFiles(tuple(complaints), paths)


def _put_in(section: dict[str, Plain], name: str, folder: Path) -> Path | None:
    """Put in what the file holds; its path, or None where none is named.

    Raises:
        ValueError: it cannot be done; the message says why and what would be right.
    """
    text = section.pop(f"{name}_file", None)
    if text is None or text == "":
        return None
    if section.get(name) is not None and section[name] != "":
        raise ValueError(f"stands beside {name}; remove one of them")
    if isinstance(text, str):
        path = folder / text
        section[name] = read_secret(path)
        return path
    raise ValueError("must be a text: the path of a file that holds the secret")


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
