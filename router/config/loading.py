"""From a file to settings, with every problem told at once.

The way: bytes → text → tree with lines (`document`, variables put in) → secrets from their files
→ models (`settings`) and checks between values (`checks`) → settings, or all problems.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router.config.checks import Complaint, cross_check
from router.config.document import DocumentError, Entry, Fault, Node, Plain, parse
from router.config.files import read_file
from router.config.problems import ConfigurationError, Location, Problem, key_of
from router.config.schema import without_empty_sections
from router.config.secret_files import file_key, put_in_secrets
from router.config.settings import ServiceSettings, Settings
from router.config.wording import location_of, message_of

MAX_FILE_BYTES = 4 * 1024 * 1024


def load(path: Path | str, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file.

    Paths of secrets and of `discovery.files` are relative to the file's folder.

    Raises:
        ConfigurationError: with all that is wrong.
    """
    source = _read(Path(path), environ)
    return _settings(source, check_whole=True)


def load_services(
    path: Path | str, environ: Mapping[str, str] = os.environ
) -> tuple[ServiceSettings, ...]:
    """Read a file of the folder `discovery.files`: a list of services, which may be `[]`.

    A file without content is a problem: it is being written, or was cut off.

    Raises:
        ConfigurationError: with all that is wrong.
    """
    source = _read(Path(path), environ)
    root = source.root
    if root.value is None and root.entries is None:
        raise _whole_file(source.path, 1, "is empty; write [] for no services")
    wrapped = Node(entries={"services": Entry(1, root)})
    below = _Source(source.path, wrapped, source.faults, prefix=("services",))
    return _settings(below, check_whole=False).services


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that could be read, and what was wrong with it up to then.

    Attributes:
        path: of the file.
        root: its tree.
        faults: located as in the file.
        prefix: what was put before the file's own locations to make it a part of settings.
    """

    path: Path
    root: Node
    faults: tuple[Fault, ...]
    prefix: Location = ()

    def problem(self, location: Location, message: str) -> Problem:
        line, _ = self.root.find(location)
        return Problem(str(self.path), line, key_of(location[len(self.prefix) :]), message)

    def fault_problems(self) -> list[Problem]:
        return [Problem(str(self.path), f.line, key_of(f.location), f.message) for f in self.faults]

    def text_before_resolving(self, location: Location) -> str | None:
        """What a scalar with a variable said; None for one without."""
        return self.root.find(location)[1].text


def _read(path: Path, environ: Mapping[str, str]) -> _Source:
    text = _text(path)
    try:
        root, faults = parse(text, environ)
    except DocumentError as error:
        fault = error.fault
        raise ConfigurationError(
            (Problem(str(path), fault.line, key_of(fault.location), fault.message),)
        ) from None
    return _Source(path, root, faults)


def _text(path: Path) -> str:
    try:
        content = read_file(path, MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _whole_file(
            path, None, f"cannot be read: {why}; name another with --config"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise _whole_file(path, None, f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _whole_file(path, line, "is not UTF-8 text; save it as UTF-8") from None


def _whole_file(path: Path, line: int | None, message: str) -> ConfigurationError:
    return ConfigurationError((Problem(str(path), line, "", message),))


def _settings(source: _Source, *, check_whole: bool) -> Settings:
    """Validate a tree; raises all problems, those found while reading included."""
    tree = without_empty_sections(source.root.plain())
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise _whole_file(source.path, 1, "must be a mapping: `services:` and its like as keys")
    secrets = put_in_secrets(tree, source.path.parent)
    unreadable = {location for location, _ in secrets.complaints}
    settings, errors = _validate(tree, source)
    complaints: list[Complaint] = [*secrets.complaints, *_told(errors, source, unreadable)]
    complaints += [c for c in cross_check(tree) if check_whole or c[0] != ("services",)]
    problems = source.fault_problems()
    faulty = {problem.key for problem in problems if problem.key}
    told = (source.problem(*secrets.as_written(complaint)) for complaint in complaints)
    problems += [problem for problem in told if problem.key not in faulty]
    if settings is None or problems:
        raise ConfigurationError(tuple(problems))
    return settings


def _told(
    errors: Iterable[ErrorDetails], source: _Source, unreadable: set[Location]
) -> Iterable[Complaint]:
    for error in errors:
        location = location_of(error)
        if error["type"] == "missing" and file_key(location) in unreadable:
            continue
        is_literal = source.text_before_resolving(location) is None
        yield location, message_of(error, show_value=is_literal)


def _validate(
    tree: dict[str, Plain], source: _Source
) -> tuple[Settings | None, tuple[ErrorDetails, ...]]:
    settings, errors = _validate_once(tree, source.path.parent)
    retyped = [_retype(tree, location_of(e), source) for e in errors if e["type"] == "string_type"]
    if any(retyped):
        settings, errors = _validate_once(tree, source.path.parent)
    return settings, errors


def _validate_once(
    tree: dict[str, Plain], folder: Path
) -> tuple[Settings | None, tuple[ErrorDetails, ...]]:
    """Validate as JSON: strict, and yet a list may be a tuple and a text a path."""
    try:
        settings = Settings.model_validate_json(
            json.dumps(tree), strict=True, context={"folder": folder}
        )
    except ValidationError as error:
        return None, tuple(error.errors(include_url=False))
    return settings, ()


def _retype(tree: Plain, location: Location, source: _Source) -> bool:
    """Take a variable for the text it is, where a text is wanted: a key may be all digits."""
    text = source.text_before_resolving(location)
    if not text:
        return False
    *above, last = location
    container: Plain = tree
    for part in above:
        container = container[part]  # type: ignore[index]
    container[last] = text  # type: ignore[index]
    return True
