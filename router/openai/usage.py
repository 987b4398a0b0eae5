"""Reading token usage out of an answer as it passes, without parsing the answer.

Inside a JSON string every quote is escaped, so the raw bytes `"usage":{` can only be a key: of the
answer itself (chat, completions, embeddings, rerank) or of its message or response object.
"""

from __future__ import annotations

import re

from router.model import Usage

_KEY = b'"usage":{'
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d{1,15})')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens":\s*(\d{1,15})')
_NESTED = re.compile(rb'"\w+":\s*\{[^{}]*\}')
_OBJECT_LIMIT = 2048


class UsageTap:
    """Finds the last usage in a sequence of byte pieces, cut anywhere.

    Costs one search a piece; the numbers are read only when asked for.
    """

    __slots__ = ("_carry", "_found", "_usage")

    def __init__(self) -> None:
        self._carry = b""
        self._found = b""
        self._usage = Usage()

    def feed(self, data: bytes) -> None:
        """Look at the next piece."""
        window = self._carry + data if self._carry else data
        at = window.rfind(_KEY)
        if at < 0:
            self._carry = window[1 - len(_KEY) :] if window[-1:] not in b"\n}" else b""
            return
        end = _closing_brace(window, at + len(_KEY) - 1)
        if end < 0 and len(window) - at < _OBJECT_LIMIT:
            self._carry = window[at:]
            at = window.rfind(_KEY, 0, at)
            end = _closing_brace(window, at + len(_KEY) - 1) if at >= 0 else -1
        else:
            self._carry = b""
        if end > 0:
            self._keep(window[at:end])

    def _keep(self, found: bytes) -> None:
        if self._found:
            self._usage = _merged(self._usage, self._found)
        self._found = found

    @property
    def usage(self) -> Usage:
        """The highest counts seen: messages tell prompt and completion in different events."""
        if self._found:
            self._usage = _merged(self._usage, self._found)
            self._found = b""
        return self._usage


def _closing_brace(window: bytes, opening: int) -> int:
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


def _merged(usage: Usage, found: bytes) -> Usage:
    flat = _NESTED.sub(b"", found[len(_KEY) :])
    prompt = _PROMPT.search(flat)
    completion = _COMPLETION.search(flat)
    return Usage(
        max(usage.prompt_tokens, int(prompt[1]) if prompt else 0),
        max(usage.completion_tokens, int(completion[1]) if completion else 0),
    )
