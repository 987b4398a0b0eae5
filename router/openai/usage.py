"""Reading token usage out of an answer as it passes, and taking out what nobody asked for.

Inside a JSON string every quote is escaped, so the raw bytes `"usage"` before a colon can only be a
key: of the answer itself (chat, completions, embeddings, rerank) or of its message or response.
"""

from __future__ import annotations

import re
from typing import Protocol

from router.model import Usage

_KEY = b'"usage"'
_OPENING = re.compile(rb'"usage"\s{0,8}:\s{0,8}\{')
_UNFINISHED = re.compile(rb'"usage"\s{0,8}(:\s{0,8})?')
_EVENT_END = b"\n\n"
_NO_CHOICES = re.compile(rb'"choices"\s{0,8}:\s{0,8}\[\s{0,8}\]')
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,15})')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,15})')
_PLAIN = re.compile(
    rb'"usage":\{"prompt_tokens":(\d{1,15}),"total_tokens":\d{1,15},"completion_tokens":(\d{1,15})[,}]'
)
_INDEX = re.compile(rb'"index"\s*:\s*(\d{1,9})')
_NESTED = re.compile(rb'"\w+"\s*:\s*\{[^{}]*\}')
_OBJECT_LIMIT = 2048
_EVENT_LIMIT = 256 * 1024


class Tap(Protocol):
    """Sees every piece of an answer's body, and says what of it goes on."""

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


class BodyTap:
    """Finds the usage in a body that is one JSON object, in pieces cut anywhere."""

    _carry = b""
    _found = b""
    _usage: Usage | None = None
    events = 0

    def feed(self, data: bytes) -> bytes:
        """Look at the next piece."""
        self.events += 1
        self._usage = None
        window = self._carry + data if self._carry else data
        at = window.rfind(_KEY)
        if at < 0:
            self._carry = window[1 - len(_KEY) :]
        else:
            found = self._found = window[at : at + _OBJECT_LIMIT]
            self._carry = found if len(found) < _OBJECT_LIMIT else b""
        return data

    def end(self) -> bytes:
        """Nothing is held back."""
        return b""

    @property
    def usage(self) -> Usage:
        """As told, or nothing where the object has not come whole."""
        if self._usage is None:
            self._usage = self._read()
        return self._usage

    def _read(self) -> Usage:
        found = self._found
        plain = _PLAIN.match(found)
        if plain is not None:
            return Usage(int(plain[1]), int(plain[2]))
        end = usage_end(found, 0) if found else -1
        return merged(Usage(), found[:end]) if end > len(_KEY) else Usage()


class UsageTap:
    """Finds every usage in a stream, in pieces cut anywhere, and passes all of them on.

    Costs one search a piece; the numbers are read only when asked for.
    """

    __slots__ = ("_carry", "_found", "_usage", "events")

    def __init__(self) -> None:
        self._carry = b""
        self._found = b""
        self._usage = Usage()
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        """Look at the next piece."""
        self.events += 1
        window = self._carry + data if self._carry else data
        at = window.find(_KEY)
        end = 0
        while at >= 0:
            end = usage_end(window, at)
            if end < 0:
                self._carry = window[at:] if len(window) - at < _OBJECT_LIMIT else b""
                return data
            if end > at + len(_KEY):
                self._keep(window[at:end])
            at = window.find(_KEY, end)
        whole = window[-1:] in {b"\n", b"}"}
        self._carry = b"" if whole else window[max(end, len(window) - len(_KEY) + 1) :]
        return data

    def end(self) -> bytes:
        """Nothing is held back."""
        return b""

    def _keep(self, found: bytes) -> None:
        if self._found:
            self._usage = merged(self._usage, self._found)
        self._found = found

    @property
    def usage(self) -> Usage:
        """The highest counts seen: messages tell prompt and completion in different events."""
        if self._found:
            self._usage = merged(self._usage, self._found)
            self._found = b""
        return self._usage


class UsageFilter:
    """Reads the usage of a chat or completions stream that the router asked for, and takes it out.

    With `include_usage` the engine sends one last event without choices. With
    `continuous_usage_stats` every event has a usage of its own choice, so that a stream which is
    cut off has still told what it cost. Whatever the client did not ask for is cut out of its
    event's bytes; an event is held only until it is whole.

    Args:
        keep_last: the client wants the last event.
        keep_each: the client wants the usage of each event too.
        continuous: each event was asked to tell its usage.
    """

    __slots__ = (
        "_by_choice", "_carry", "_continuous", "_drop_each", "_drop_last", "_total", "events",
    )  # fmt: skip

    def __init__(self, *, keep_last: bool, keep_each: bool, continuous: bool) -> None:
        self._drop_last = not keep_last
        self._drop_each = continuous and not keep_each
        self._continuous = continuous
        self._carry = b""
        self._by_choice: dict[bytes, bytes] = {}
        self._total = b""
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        """Pass on the events that are whole."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at = data.rfind(_EVENT_END)
        end = at + len(_EVENT_END)
        if at < 0:
            if len(data) > _EVENT_LIMIT:
                return data
            self._carry = data
            return b""
        if end < len(data):
            self._carry = data[end:]
            data = data[:end]
        if data.find(_EVENT_END) == at:
            return self._event(data)
        return b"".join([self._event(event + _EVENT_END) for event in data[:-2].split(_EVENT_END)])

    def end(self) -> bytes:
        """What followed the last whole event."""
        rest, self._carry = self._carry, b""
        return rest

    def _event(self, event: bytes) -> bytes:
        self.events += 1
        at = event.rfind(_KEY)
        if at < 0:
            return event
        end = usage_end(event, at)
        if end <= at + len(_KEY):
            return event
        if _NO_CHOICES.search(event):
            self._total = event[at:end]
            return b"" if self._drop_last else event
        choice = _INDEX.search(event)
        self._by_choice[choice[1] if choice else b"0"] = event[at:end]
        if not self._continuous:
            # The engine tells usage on every event unasked (--enable-force-include-usage), so its
            # last one is no addition of the router's either.
            self._drop_last = False
        return _without(event, at, end) if self._drop_each else event

    @property
    def usage(self) -> Usage:
        """The total the engine told last; before that, the sum over the choices so far."""
        if self._total:
            return merged(Usage(), self._total)
        told = [merged(Usage(), found) for found in self._by_choice.values()]
        if not told:
            return Usage()
        return Usage(
            max(usage.prompt_tokens for usage in told),
            sum(usage.completion_tokens for usage in told),
        )


def usage_end(window: bytes, at: int) -> int:
    """Offset after the usage object whose key is at `at`; -1 where it is not all there yet.

    Where the key has no object (it is null, or a value), the offset after the key.
    """
    opening = _OPENING.match(window, at)
    if opening is not None:
        return closing_brace(window, opening.end() - 1)
    unfinished = _UNFINISHED.match(window, at)
    if unfinished is not None and unfinished.end() == len(window):
        return -1
    return at + len(_KEY)


def closing_brace(window: bytes, opening: int) -> int:
    """Offset after the brace that closes the one at `opening`; -1 where it is not there yet.

    A usage object holds numbers and one level of detail objects, no strings with braces.
    """
    depth = 0
    at = opening
    while True:
        closing = window.find(b"}", at)
        if closing < 0:
            return -1
        depth += window.count(b"{", at, closing) - 1
        at = closing + 1
        if depth <= 0:
            return at


def merged(usage: Usage, found: bytes) -> Usage:
    """`usage`, raised to the counts in the bytes of a usage object."""
    flat = _NESTED.sub(b"", found[found.index(b"{") + 1 :])
    prompt = _PROMPT.search(flat)
    completion = _COMPLETION.search(flat)
    return Usage(
        max(usage.prompt_tokens, int(prompt[1]) if prompt else 0),
        max(usage.completion_tokens, int(completion[1]) if completion else 0),
    )


def _without(event: bytes, at: int, end: int) -> bytes:
    """`event` without the member at `at`..`end`, and without the comma that joined it."""
    before = event[:at].rstrip()
    if before.endswith(b","):
        return before[:-1] + event[end:]
    after = event[end:].lstrip(b" \t")
    return event[:at] + after[1:].lstrip(b" \t") if after.startswith(b",") else event[:at] + after
