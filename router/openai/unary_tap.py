"""Reading the usage of a body that is one JSON object, as it passes."""

from __future__ import annotations

import re

import msgspec

from router.model import NO_USAGE, Usage
from router.openai.usage import KEY, OBJECT_FOLLOWS, Counts, closed, unfinished

_OBJECT_LIMIT = 8192
_CUT_KEY = re.compile(rb'"usage"\s*+:?\s*+\Z')
_NOTHING_MORE = re.compile(rb"\s*+\Z")


class _Body(msgspec.Struct, gc=False):
    usage: Counts | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_counts = msgspec.json.Decoder(Counts).decode


class BodyTap:
    """Finds the usage in a body that is one JSON object, in pieces cut anywhere.

    Most bodies come in one piece, and are read as what they are. In a larger one the usage may be
    anywhere (last, or before megabytes of results), and objects inside may have a key of that name
    too. So the first that comes is kept, and from there on braces are followed: what encloses it
    must be the last thing in the body. Else it was a part of something smaller, and the search
    goes on. Nothing but the one object is kept.
    """

    _carry = b""
    _counts: Counts | None = None
    _open = 0
    cuts = False
    events = 0

    def feed(self, data: bytes) -> bytes:
        """Look at the next piece."""
        self.events += 1
        if self.events > 1 or not self._is_whole(data):
            self._look(data)
        return data

    def end(self) -> bytes:
        """Nothing is held back."""
        return b""

    def _is_whole(self, data: bytes) -> bool:
        """Whether the first piece is all there is; its usage is kept then."""
        if data[-1:] != b"}":
            return False
        try:
            self._counts = _decode_body(data).usage
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True

    def _look(self, data: bytes) -> None:
        window = self._carry + data if self._carry else data
        self._carry = b""
        at = self._follow(window, 0)
        while not self._open:
            if self._counts is not None:
                if _NOTHING_MORE.match(window, at):
                    break
                self._counts = None
            at = self._search(window, at)
            if at < 0:
                break
            at = self._follow(window, at)

    def _search(self, window: bytes, at: int) -> int:
        """Keep the next usage object; the offset after it, or -1 where there is none yet."""
        while (at := window.find(KEY, at)) >= 0:
            value = OBJECT_FOLLOWS.match(window, at)
            if value is None:
                if _CUT_KEY.match(window, at):
                    self._carry = window[at:][:_OBJECT_LIMIT]
                    return -1
                at += len(KEY)
                continue
            end, depth = closed(window, value.end(), 1)
            if depth:
                self._wait(window, at, end, depth)
                return -1
            if self._keep(window[value.end() - 1 : end]):
                return end
            at = end
        self._carry = window[1 - len(KEY) :]
        return -1

    def _wait(self, window: bytes, at: int, end: int, depth: int) -> None:
        """For the rest of the object at `at`, of which `depth` are still open at `end`."""
        if len(window) - at < _OBJECT_LIMIT:
            self._carry = window[at:]
        else:  # too large to be a usage: go on behind it
            self._open = depth
            self._carry = unfinished(window, end)

    def _keep(self, found: bytes) -> bool:
        """Whether it is a usage object at all."""
        try:
            self._counts = _decode_counts(found)
        except (msgspec.MsgspecError, RecursionError):
            return False
        self._open = 1
        return True

    def _follow(self, window: bytes, at: int) -> int:
        """Go on to the end of what encloses the usage that was found; the offset after it."""
        if self._open:
            at, self._open = closed(window, at, self._open)
            if self._open:
                self._carry = unfinished(window, at)
        return at

    @property
    def usage(self) -> Usage:
        """As told, once it is certain that the object is the body's own."""
        return NO_USAGE if self._counts is None or self._open else self._counts.usage()
