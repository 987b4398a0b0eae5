"""Which models a key may use: patterns in which `*` stands for any characters."""

from __future__ import annotations

import re

_MAX_ANSWERS = 1024


class ModelScope:
    """Patterns, compiled once; what was asked before is answered from memory, within a bound.

    Args:
        patterns: of full model names, case-sensitive; `*` is the only sign with a meaning.
    """

    __slots__ = ("_answers", "_match", "patterns")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = patterns
        everything = any(pattern and not pattern.strip("*") for pattern in patterns)
        self._match = None if everything else re.compile(_expression(patterns), re.DOTALL).fullmatch
        self._answers: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"ModelScope({self.patterns!r})"

    def __eq__(self, other: object) -> bool:
        return self.patterns == other.patterns if isinstance(other, ModelScope) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.patterns)

    def allows(self, model: str) -> bool:
        """Whether one of the patterns fits the whole name."""
        if self._match is None:
            return True
        answer = self._answers.get(model)
        if answer is None:
            answer = self._match(model) is not None
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[model] = answer
        return answer


def _expression(patterns: tuple[str, ...]) -> str:
    return "|".join(map(_one, patterns)) if patterns else "(?!)"


def _one(pattern: str) -> str:
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return first
    *middle, last = rest
    # Atomic groups: what stands between two stars fits best where it is found first, so no
    # pattern can make a name be tried twice.
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last
