"""The `x-ratelimit-*` header lines: what is left of an organization's tightest windows."""

from __future__ import annotations

from router.ledger import Tightest
from router.ledger.accounts import NO_LIMIT, Counter, WindowSet

_MAX_KEPT = 1024
_Kept = tuple[int, int, Counter, int, int, bytes]
"""From and until when, window of tokens, its limit, limit of requests, and the lines but for what
is left."""


def lines_of(tightest: Tightest, now: float) -> bytes:
    """Three lines for each kind that has a limit, each ended by CRLF."""
    lines = b""
    for form, window in ((_REQUEST_LINES, tightest.requests), (_TOKEN_LINES, tightest.tokens)):
        if window is not None:
            lines += form % (window.limit, window.remaining, max(0, window.resets_at - now))
    return lines


class RateLines:
    """The same lines for every answer, where both kinds have a limit: only two numbers change.

    The rest is kept for a second at a time.
    """

    def __init__(self) -> None:
        self._kept: dict[WindowSet, _Kept] = {}

    def tell(self, windows: WindowSet, now: float) -> bytes:
        """All six lines; nothing where a kind has no limit or the day has ended, see `lines_of`."""
        tokens, requests = windows.tightest_tokens(), windows.day_requests
        kept = self._kept.get(windows)
        if (
            kept is None
            or not kept[0] <= now < kept[1]
            or kept[2] is not tokens
            or kept[3] is not tokens.limit
            or kept[4] is not requests.limit
        ):
            if NO_LIMIT in {tokens.limit, requests.limit} or now >= windows.end:
                return b""
            kept = self._keep(windows, tokens, requests, int(now))
        left, left_requests = tokens.left, requests.left
        if left < 0 or left_requests < 0:
            left, left_requests = max(0, left), max(0, left_requests)
        return kept[5] % (left_requests, left)

    def _keep(self, windows: WindowSet, tokens: Counter, requests: Counter, second: int) -> _Kept:
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        form = _BOTH_LINES % (
            requests.limit,
            max(0, requests.end - second),
            tokens.limit,
            max(0, tokens.end - second),
        )
        kept = second, second + 1, tokens, tokens.limit, requests.limit, form
        self._kept[windows] = kept
        return kept


def _form(kind: bytes, left: bytes = b"%d") -> bytes:
    """The three lines of a kind, to be filled with limit, remaining and seconds until the reset."""
    return (
        b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %b\r\n"
        b"x-ratelimit-reset-%b: %%ds\r\n"
    ) % (kind, kind, left, kind)


_REQUEST_LINES = _form(b"requests")
_TOKEN_LINES = _form(b"tokens")
# To be filled twice: first with what holds for a second, then with what is left.
_BOTH_LINES = _form(b"requests", b"%%d") + _form(b"tokens", b"%%d")
