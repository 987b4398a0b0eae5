"""What is wrong with a configuration: one `Problem` each, and the error that carries them all."""

from __future__ import annotations

from dataclasses import dataclass

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: path of the file, as it was given.
        line: from 1; None when the file as a whole is meant.
        key: where in the file, `services[0].url`; empty for the file as a whole.
        message: what is wrong and what would be right; holds no secret.
    """

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigurationError(Exception):
    """A configuration that cannot be used; `str()` is one line a problem.

    Attributes:
        problems: all of them, in the order of their lines.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def key_of(location: Location) -> str:
    """Write a location as operators read it: `services[0].url`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")
