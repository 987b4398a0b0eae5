"""What usage an engine is asked to tell in a stream of chat or completions, beyond the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from router.openai.body import Fields, Flag, is_true
from router.openai.stream_taps import UsageFilter


class _Options(msgspec.Struct):
    include_usage: Flag = None
    continuous_usage_stats: Flag = None


_decode_options = msgspec.json.Decoder(_Options | None).decode
# What is not known of them goes on as it came: no number is read, so none can be too large.
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


@dataclass(frozen=True, slots=True)
class StreamUsage:
    """What is asked for, and what of it the client wants.

    Attributes:
        keep_last: the client wants the last event, which tells the total.
        keep_each: it wants the usage of each event too.
        continuous: each event is asked to tell its usage.
        n: choices of each prompt.
        options: `stream_options` to send; None: the client's own will do.
    """

    keep_last: bool
    keep_each: bool
    continuous: bool
    n: int
    options: dict[str, Any] | None

    def tap(self) -> UsageFilter:
        """What reads the usage, and takes out what the client does not want."""
        return UsageFilter(
            keep_last=self.keep_last,
            keep_each=self.keep_each,
            continuous=self.continuous,
            n=self.n,
        )


def stream_usage(fields: Fields, *, continuous: bool) -> StreamUsage | None:
    """Have a stream tell its usage; None where the engine refuses the client's own options.

    Args:
        fields: of the request.
        continuous: with each event, so that a stream which is cut off has told what it cost.
    """
    raw = fields.stream_options
    try:
        told = _decode_options(raw) or _Options()
        options: dict[str, Any] = dict(_decode_members(raw) or {})
    except msgspec.ValidationError:
        return None  # the engine says why
    keep_last = is_true(told.include_usage)
    keep_each = keep_last and is_true(told.continuous_usage_stats)
    n = 1 if fields.n is None else max(1, fields.count("n") or 1)
    suffices = keep_last and (keep_each or not continuous)
    options["include_usage"] = True
    if continuous:
        options["continuous_usage_stats"] = True
    return StreamUsage(
        keep_last, keep_each, continuous or keep_each, n, None if suffices else options
    )
