"""Token usage as engines tell it: where it stands in an answer, and what its numbers mean.

An answer holds keys that clients and models choose: schemas of tools that are echoed, what a tool
is called with, metadata. So a key alone proves nothing; what counts is where it stands. The usage
is a member of the answer itself (chat, completions, embeddings, rerank, a unary message or
response) or, in a stream, of an event's `message` or `response`.
"""

from __future__ import annotations

import re
from typing import Annotated, Protocol

import msgspec

from router.model import Usage

KEY = b'"usage"'
"""In a string every quote is escaped, so these bytes end a string: mostly all of it."""
OBJECT_FOLLOWS = re.compile(rb'"usage"\s*+:\s*+\{')
_SIMPLE = re.compile(rb'"usage":(\{(?:"\w++":\w++,?+)*+\})[^{}]*+\}\s*+\Z')
_NEITHER_BRACE = rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+'
_BRACE = re.compile(_NEITHER_BRACE + rb"[{}]", re.DOTALL)
_UNBRACED = re.compile(_NEITHER_BRACE, re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_OPENING = ord("{")


class Tap(Protocol):
    """Sees every piece of an answer's body, and says what of it goes on.

    Attributes:
        cuts: what goes on may be less than what came, so no length may be told before it.
    """

    cuts: bool

    def feed(self, data: bytes) -> bytes:
        """The next piece, cut anywhere; returns what to pass on now."""

    def end(self) -> bytes:
        """The body has ended; returns what was held back."""

    @property
    def usage(self) -> Usage:
        """Tokens, as told so far."""

    @property
    def events(self) -> int:
        """Events seen, for engines that tell no usage."""


Told = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | None
"""A count; one that floating point could not hold is none, and would break all sums it is in."""


class Counts(msgspec.Struct, gc=False):
    """A usage object, in OpenAI's words or in Anthropic's."""

    prompt_tokens: Told = None
    completion_tokens: Told = None
    input_tokens: Told = None
    output_tokens: Told = None
    cache_read_input_tokens: Told = None
    cache_creation_input_tokens: Told = None

    def usage(self) -> Usage:
        """Tokens of the whole prompt, cached ones included, and of the answer.

        Anthropic's `input_tokens` leave out what was read from the cache or written to it.
        """
        prompt = self.prompt_tokens or (
            (self.input_tokens or 0)
            + (self.cache_read_input_tokens or 0)
            + (self.cache_creation_input_tokens or 0)
        )
        completion = self.completion_tokens or self.output_tokens or 0
        return Usage(max(0, prompt), max(0, completion))


def closed(text: bytes, at: int, depth: int) -> tuple[int, int]:
    """Go on from `at`, which is not inside a string, until `depth` open objects are closed.

    Returns the offset after the last brace, and how many objects are still open: 0, or more where
    the text ends before.
    """
    while depth:
        brace = _BRACE.match(text, at)
        if brace is None:
            break
        at = brace.end()
        depth += 1 if text[at - 1] == _OPENING else -1
    return at, depth


def unfinished(text: bytes, at: int) -> bytes:
    """What must stand before the rest of a text that has no more braces from `at` on.

    Where the text ends inside a string, its opening quote, and half an escape: however long the
    string is, no more of it is needed to find its end.
    """
    opening = _UNBRACED.match(text, at)
    assert opening is not None
    if opening.end() == len(text):
        return b""
    said = _IN_STRING.match(text, opening.end() + 1)
    assert said is not None
    return b'"' + text[said.end() :]


def own_member(text: bytes, at: int) -> tuple[int, int] | None:
    """Where the usage stands that is a member of the outermost object, from key to closing brace.

    Args:
        text: ends with that object, and perhaps white space.
        at: offset of the last `KEY` in it.
    """
    simple = _SIMPLE.match(text, at)
    if simple is not None:  # one brace alone follows, so one object alone was open
        return at, simple.end(1)
    while at >= 0:
        value = OBJECT_FOLLOWS.match(text, at)
        if value is not None:
            end, within = closed(text, value.end(), 1)
            outer_end, around = closed(text, end, 1)
            if not within and not around and not text[outer_end:].strip():
                return at, end
        at = text.rfind(KEY, 0, at)
    return None
