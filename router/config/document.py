"""A YAML text as a tree whose every value knows its line.

Built from the parser's events, not by PyYAML's own constructors: those lose the lines, take the
last of two equal keys, read `no` as false, and recurse as deep as the text does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from router.config.interpolation import has_reference, interpolate
from router.config.problems import Location
from router.config.scalars import Scalar, resolve

_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_MAX_DEPTH = 32
_MAX_SIZE = 8 * 1024 * 1024  # characters after aliases and variables, a value counting at least 16
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})

Plain = Scalar | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a mapping or list: the line of its key (or dash), and its value."""

    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """One value.

    Attributes:
        value: of a scalar.
        entries: of a mapping (by key) or a list (by index); None for a scalar.
        is_list: tells an empty list from an empty mapping.
        text: what a scalar said after variables were put in; None where there were none.
        size: characters, everything below counted in.
        depth: containers, itself and below.
    """

    value: Scalar = None
    entries: Mapping[str | int, Entry] | None = None
    is_list: bool = False
    text: str | None = None
    size: int = 16
    depth: int = 0

    def plain(self) -> Plain:
        """Convert to dicts, lists and scalars."""
        if self.entries is None:
            return self.value
        if self.is_list:
            return [entry.node.plain() for entry in self.entries.values()]
        return {str(key): entry.node.plain() for key, entry in self.entries.items()}

    def find(self, location: Location) -> tuple[int, Node]:
        """Line and value at a location, or of the nearest that is there above it."""
        line, node = 1, self
        for part in location:
            entry = (node.entries or {}).get(part)
            if entry is None:
                break
            line, node = entry.line, entry.node
        return line, node


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a line (from 1); the location is empty where it is not known."""

    line: int | None
    location: Location
    message: str


class DocumentError(Exception):
    """The text is no document that could be read on."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(line, (), message)


@dataclass(slots=True)
class _Open:
    """A container whose end has not come yet."""

    line: int
    is_list: bool
    anchor: str | None
    entries: dict[str | int, Entry] = field(default_factory=dict)
    key: str | None = None
    key_line: int = 0
    size: int = 16
    depth: int = 1


class _Builder:
    """Turns events into nodes; owns the anchors and the containers that are open."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self.faults: list[Fault] = []
        self.root = Node()

    def feed(self, event: yaml.Event) -> None:
        line = _line(event)
        match event:
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.AliasEvent():
                self._add(self._alias(event.anchor, line), line)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._start(event, line)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()
            case _:
                pass

    def _location(self) -> Location:
        return tuple(len(c.entries) if c.is_list else c.key or "" for c in self._open)

    def _expects_key(self) -> bool:
        return bool(self._open) and not self._open[-1].is_list and self._open[-1].key is None

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, line: int) -> None:
        if self._expects_key():
            raise DocumentError(line, "a key must be a text; quote it, or ${...} after { or [")
        if len(self._open) >= _MAX_DEPTH:
            raise DocumentError(line, f"nested more than {_MAX_DEPTH} levels deep")
        if event.tag is not None:
            self._refuse_tag(event.tag, line)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        self._open.append(_Open(line, is_list, event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        node = Node(None, done.entries, done.is_list, None, done.size, done.depth)
        self._remember(done.anchor, node)
        self._add(node, done.line)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _alias(self, anchor: str | None, line: int) -> Node:
        if self._expects_key():
            raise DocumentError(line, "a key must be a text, not an alias")
        node = self._anchors.get(anchor or "")
        if node is None:
            raise DocumentError(line, f"the alias *{anchor} has no &{anchor} that ended before it")
        return node

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if self._expects_key():
            self._key(event.value, line)
            return
        node = self._scalar_node(event, line)
        self._remember(event.anchor, node)
        self._add(node, line)

    def _key(self, key: str, line: int) -> None:
        if not _is_unicode(key):
            raise DocumentError(line, "a key holds half a surrogate pair, which is no character")
        container = self._open[-1]
        container.key, container.key_line = key, line
        container.size += 16 + len(key)
        if key in container.entries:
            first = container.entries[key].line
            self._fault(line, f"is written twice, first in line {first}; remove one of them")

    def _scalar_node(self, event: yaml.ScalarEvent, line: int) -> Node:
        is_plain = event.implicit[0]
        if event.tag is not None:
            is_plain = False
            if event.tag not in _TEXT_TAGS:
                self._refuse_tag(event.tag, line)
        text, referenced = event.value, has_reference(event.value)
        if referenced:
            try:
                text = interpolate(text, self._environ)
            except ValueError as error:
                self._fault(line, str(error))
        if not _is_unicode(text):
            self._fault(line, "holds half a surrogate pair, which is no character; remove it")
            text = ""
        value = resolve(text) if is_plain else text
        return Node(value, text=text if referenced else None, size=16 + len(text))

    def _add(self, node: Node, line: int) -> None:
        if not self._open:
            self.root = node
            return
        container = self._open[-1]
        container.size += node.size
        container.depth = max(container.depth, node.depth + 1)
        if container.size > _MAX_SIZE or len(self._open) + node.depth > _MAX_DEPTH:
            raise DocumentError(line, "aliases or variables make the file too large or too deep")
        if container.is_list:
            container.entries[len(container.entries)] = Entry(line, node)
        elif container.key is not None:
            container.entries.setdefault(container.key, Entry(container.key_line, node))
            container.key = None

    def _refuse_tag(self, tag: str, line: int) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        self._fault(line, f"the tag {shown} is not known here; write the plain value without it")

    def _fault(self, line: int, message: str) -> None:
        self.faults.append(Fault(line, self._location(), message))


def parse(text: str, environ: Mapping[str, str]) -> tuple[Node, tuple[Fault, ...]]:
    """Read one YAML document; an empty one is a node of None.

    Raises:
        DocumentError: the text is not YAML, or is not to be read on.
    """
    builder = _Builder(environ)
    documents = 0
    try:
        for event in _events(text):
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise DocumentError(_line(event), "a second document; remove its ---")
            builder.feed(event)
    except (yaml.YAMLError, ValueError) as error:  # PyYAML without libyaml: chr() of an escape
        raise _syntax_error(error, text) from None
    return builder.root, tuple(builder.faults)


def _events(text: str) -> Iterator[yaml.Event]:
    return yaml.parse(text, Loader=_LOADER)


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _character_error(text: str) -> DocumentError:
    """Tell the first character that may not be in a file; the parser knows it by its offset alone.

    That of libyaml counts bytes, that of PyYAML's own parser characters.
    """
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is None:
        return DocumentError(None, "not YAML: it holds a character that is not allowed")
    line = text.count("\n", 0, found.start()) + 1
    name = f"U+{ord(found[0]):04X}"
    return DocumentError(line, f"not YAML: the character {name} is not allowed; remove it")


def _syntax_error(error: Exception, text: str) -> DocumentError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return _character_error(text)
    problem = getattr(error, "problem", None) or "cannot be read"
    lines = text.splitlines()
    hint = ""
    if mark.line < len(lines) and has_reference(lines[mark.line]):
        hint = '; between { } or [ ] write "${NAME}" with quotes'
    line = max(1, min(mark.line + 1, len(lines)))
    return DocumentError(line, f"not YAML: {problem}{hint}")
