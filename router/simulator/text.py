"""What the simulated engine says: words drawn by a number, and where an answer ends."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

_VOCABULARY = """
    the a one every model token stream engine router batch queue cache prompt answer request
    client server key light river stone paper garden window morning evening winter summer
    house street letter number story question road mountain ocean forest cloud rain signal
    measure balance pattern memory picture music silence colour machine journey kitchen
    quiet slow quick bright early late small large warm cold patient honest careful simple
    finds keeps moves opens reads sends takes turns waits writes answers begins counts follows
    gathers holds joins learns meets passes rests runs sees speaks starts stays walks works
    and but or so because while before after under over between through without along
    café naïve Zürich Ångström déjà señor → λ 光 東京 наука 🌊
"""
_WORDS = tuple(_VOCABULARY.split())
_SENTENCE = 12
_MASK = (1 << 64) - 1


class FinishReason(enum.StrEnum):
    """Why a sequence ended, in the words of vLLM's metrics."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        text: what it adds to the answer; may be empty (end of text, or held back for a stop).
        finish: set on the last token of a sequence.
        stop_reason: the stop string that ended it, if one did.
    """

    text: str
    finish: FinishReason | None = None
    stop_reason: str | None = None


def mix(*numbers: int) -> int:
    """One 64-bit number out of several; a change in any of them changes all of it."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
        state ^= state >> 29
    return state


def words(key: int) -> Iterator[str]:
    """Endless words for `key`, in something like sentences; each after the first has its blank."""
    state = key
    for position in itertools.count():
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        place = position % (_SENTENCE + 1)
        if place == _SENTENCE:
            yield "."
            continue
        word = _WORDS[(state >> 33) % len(_WORDS)]
        word = word.capitalize() if place == 0 else word
        yield word if position == 0 else " " + word


def answer_length(key: int, mean: int) -> int:
    """Words of the answer to `key`: from half to one and a half of `mean`."""
    return max(1, mean // 2 + mix(key) % (mean + 1))


def pieces(text: str, width: int = 4) -> Iterator[str]:
    """A given text in tokens of `width` characters."""
    return (text[i : i + width] for i in range(0, len(text), width))


class Script:
    """What one sequence will say, token by token, until end of text, a stop string or its limit.

    Text that could be the beginning of a stop string is held back, as vLLM does.
    """

    __slots__ = ("_held", "_limit", "_made", "_min_tokens", "_pieces", "_stops")

    def __init__(
        self,
        source: Iterator[str],
        limit: int,
        stops: tuple[str, ...] = (),
        min_tokens: int = 0,
    ) -> None:
        """`limit` and `min_tokens` count tokens; stop strings are looked for after `min_tokens`."""
        self._pieces = source
        self._limit = limit
        self._stops = stops
        self._min_tokens = min_tokens
        self._made = 0
        self._held = ""

    def next(self) -> Token:
        """The next token; not to be asked for more after one that finishes."""
        self._made += 1
        piece = next(self._pieces, None)
        if piece is None:
            return Token(self._held, FinishReason.STOP)
        if self._stops:
            return self._screened(piece)
        return Token(piece, FinishReason.LENGTH if self._made >= self._limit else None)

    def _screened(self, piece: str) -> Token:
        text = self._held + piece
        if self._made > self._min_tokens:
            found = min(
                ((at, stop) for stop in self._stops if (at := text.find(stop)) >= 0), default=None
            )
            if found is not None:
                return Token(text[: found[0]], FinishReason.STOP, found[1])
        if self._made >= self._limit:
            return Token(text, FinishReason.LENGTH)
        cut = max(0, len(text) - max(map(len, self._stops)) + 1)
        self._held = text[cut:]
        return Token(text[:cut])
