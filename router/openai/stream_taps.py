"""Reading the usage of a stream of events as it passes, and taking out what nobody asked for."""

from __future__ import annotations

import re

import msgspec

from router.model import NO_USAGE, Usage
from router.openai.usage import KEY, Counts, own_member

_EVENT_END = b"\n\n"
_CRLF_EVENT_END = b"\r\n\r\n"
_COMMENT = b":"
"""Begins a line that keeps a connection alive and tells nothing."""
_DATA = b"data:"
_HELD_LIMIT = 256 * 1024
_LINE_LIMIT = 1024 * 1024
_NUMBER_KEY = b'"sequence_number":'
_NUMBER = re.compile(rb'"sequence_number": ?([0-9]{1,15})[,}]')


class _Holder(msgspec.Struct, gc=False):
    usage: Counts | None = None


class _Event(msgspec.Struct, gc=False):
    usage: Counts | None = None
    message: _Holder | None = None
    response: _Holder | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0


class _Chunk(msgspec.Struct, gc=False):
    usage: Counts | None = None
    choices: list[_Choice] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class UsageTap:
    """Reads every usage in a stream, in pieces cut anywhere, and passes all of them on.

    Costs one search a piece. A line is kept until it is whole, up to a mebibyte; what is told in a
    longer one is not read.
    """

    __slots__ = ("_carry", "_usage", "events")

    cuts = False

    def __init__(self) -> None:
        self._carry = b""
        self._usage = NO_USAGE
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        """Look at the next piece."""
        if data[:1] != _COMMENT:
            self.events += data.count(_EVENT_END) or 1
        if self._carry or data[-1:] != b"\n":
            self._gather(data)
        elif KEY in data:
            self._read(data)
        return data

    def end(self) -> bytes:
        """Nothing is held back."""
        rest, self._carry = self._carry, b""
        self._read(rest)
        return b""

    def _gather(self, data: bytes) -> None:
        """Keep what is not a whole line yet."""
        window = self._carry + data
        end = window.rfind(b"\n") + 1
        self._carry = window[end:] if len(window) - end <= _LINE_LIMIT else b""
        whole = window[:end]
        if KEY in whole:
            self._read(whole)

    def _read(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            if line.startswith(_DATA) and KEY in line:
                self._raise_to(line[len(_DATA) :])

    def _raise_to(self, data: bytes) -> None:
        try:
            event = _decode_event(data)
        except (msgspec.MsgspecError, RecursionError):
            return  # no event that tells a usage
        for holder in (event, event.message, event.response):
            if holder is not None and holder.usage is not None:
                told, before = holder.usage.usage(), self._usage
                self._usage = Usage(
                    max(before.prompt_tokens, told.prompt_tokens),
                    max(before.completion_tokens, told.completion_tokens),
                )

    @property
    def usage(self) -> Usage:
        """The highest counts seen: messages tell prompt and completion in different events."""
        return self._usage


class NumberedTap(UsageTap):
    """The same for a stream of responses, whose events have numbers.

    Attributes:
        next_number: the one after the last that was seen whole.
    """

    __slots__ = ("next_number",)

    def __init__(self) -> None:
        super().__init__()
        self.next_number = 0

    def feed(self, data: bytes) -> bytes:
        """Look at the next piece."""
        window = self._carry + data if self._carry else data
        if _NUMBER_KEY in window:
            numbers = _NUMBER.findall(window)
            if numbers:
                self.next_number = int(numbers[-1]) + 1
        return super().feed(data)


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
        n: choices of each prompt; those of the first prompt come first in their numbering.
    """

    __slots__ = (
        "_by_choice", "_carry", "_continuous", "_drop_each", "_drop_last", "_gap", "_n", "_total",
        "cuts", "events",
    )  # fmt: skip

    def __init__(self, *, keep_last: bool, keep_each: bool, continuous: bool, n: int = 1) -> None:
        self._drop_last = not keep_last
        self._drop_each = continuous and not keep_each
        self._continuous = continuous
        self._n = n
        self._carry = b""
        self._gap = _EVENT_END
        self._by_choice: dict[int, Counts] = {}
        self._total: Counts | None = None
        self.cuts = self._drop_last or self._drop_each
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        """Pass on the events that are whole."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at = data.rfind(self._gap)
        end = at + len(self._gap)
        if at < 0:
            if self._gap is _EVENT_END and _CRLF_EVENT_END in data:
                self._gap = _CRLF_EVENT_END
                return self.feed(data)
            if len(data) > _HELD_LIMIT:
                return data
            self._carry = data
            return b""
        if end < len(data):
            self._carry = data[end:]
            data = data[:end]
        gap = self._gap
        if data.find(gap) == at:
            return self._event(data)
        return b"".join([self._event(event + gap) for event in data[:at].split(gap)])

    def end(self) -> bytes:
        """What followed the last whole event: one without its blank line."""
        rest, self._carry = self._carry, b""
        return self._event(rest) if rest else b""

    def _event(self, event: bytes) -> bytes:
        if event[:1] != _COMMENT:
            self.events += 1
        at = event.rfind(KEY)
        if at < 0:
            return event
        try:
            chunk = _decode_chunk(event[event.find(b"{") :])
        except (msgspec.MsgspecError, RecursionError):
            return event  # none of chat or completions
        counts, choices = chunk.usage, chunk.choices
        if counts is None or choices is None:
            return event
        if not choices:
            self._total = counts
            return b"" if self._drop_last else event
        self._by_choice[choices[0].index] = counts
        if not self._continuous:
            # The engine tells usage on every event unasked (--enable-force-include-usage), so its
            # last one is no addition of the router's either.
            self._drop_last = False
        return _without_usage(event, at) if self._drop_each else event

    @property
    def usage(self) -> Usage:
        """The total the engine told last; before that, the sum over prompts and choices so far."""
        if self._total is not None:
            return self._total.usage()
        prompts: dict[int, int] = {}
        completion = 0
        for index, counts in self._by_choice.items():
            told = counts.usage()
            prompt = index // self._n
            prompts[prompt] = max(prompts.get(prompt, 0), told.prompt_tokens)
            completion += told.completion_tokens
        return Usage(sum(prompts.values()), completion)


def _without_usage(event: bytes, last_key: int) -> bytes:
    """`event` without its own usage, and without the comma that joined it."""
    member = own_member(event, last_key)
    if member is None:
        return event
    at, end = member
    before = event[:at].rstrip()
    if before.endswith(b","):
        return before[:-1] + event[end:]
    after = event[end:].lstrip(b" \t")
    return event[:at] + after[1:].lstrip(b" \t") if after.startswith(b",") else event[:at] + after
