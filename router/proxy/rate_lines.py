"""The `x-ratelimit-*` header lines: what is left of an organization's tightest windows."""

from __future__ import annotations

from router.ledger import Tightest
from router.ledger.accounts import NO_LIMIT, WindowSet


def lines_of(tightest: Tightest, now: float) -> bytes:
    """Three lines for each kind that has a limit, each ended by CRLF."""
    lines = b""
    for form, window in ((_REQUEST_LINES, tightest.requests), (_TOKEN_LINES, tightest.tokens)):
        if window is not None:
            lines += form % (window.limit, window.remaining, max(0, window.resets_at - now))
    return lines


def lines_left(windows: WindowSet, now: float) -> bytes:
    """The same where both kinds have a limit and the day has not ended; else nothing.

    From one answer to the next only two numbers change, so the rest is kept for a second.
    """
    second = int(now)
    if second != windows.form_at and not _set_form(windows, second):
        return b""
    requests, tokens = windows.left_requests, windows.left_tokens
    if tokens < 0 or requests < 0:
        return windows.form % (max(0, requests), max(0, tokens))
    return windows.form % (requests, tokens)


def _set_form(windows: WindowSet, second: int) -> bool:
    """Write all that holds for a second; False where something else is to be told."""
    tokens, requests = windows.tightest, windows.day_requests
    if NO_LIMIT in {tokens.limit, requests.limit} or second >= windows.end:
        return False
    windows.form_at = second
    windows.form = _BOTH_LINES % (
        requests.limit,
        max(0, requests.end - second),
        tokens.limit,
        max(0, tokens.end - second),
    )
    return True


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
