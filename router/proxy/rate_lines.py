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


def set_form(windows: WindowSet, elapsed: float, now: float) -> bool:
    """Write down the same lines for the rest of a second, but for what is left.

    Args:
        windows: keep it.
        elapsed: monotonic seconds.
        now: seconds since the epoch.

    Returns:
        False where `lines_of` is needed: a kind has no limit, or others are in force.
    """
    second = int(now)
    tokens, requests = windows.tightest, windows.day_requests
    in_force = windows.in_force and second < windows.end
    if not in_force or NO_LIMIT in {tokens.limit, requests.limit}:
        return False
    windows.form_until = elapsed + second + 1 - now
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
