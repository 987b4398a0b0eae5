"""What the last minute was like, for pages that show the present."""

from __future__ import annotations


class RollingMinute:
    """Sums over the last minute, in six slots of ten seconds."""

    __slots__ = ("_slots", "_stamps")
    _SLOT_S = 10.0
    _COUNT = 6

    def __init__(self) -> None:
        self._slots = [[0.0] * 5 for _ in range(self._COUNT)]
        self._stamps = [-1] * self._COUNT

    def add(
        self,
        now: float,
        *,
        count: int,
        duration_s: float,
        first_count: int,
        first_s: float,
        tokens: int,
    ) -> None:
        """Count exchanges that ended about `now`: sums of their durations, first bytes, tokens."""
        stamp = int(now / self._SLOT_S)
        place = stamp % self._COUNT
        if self._stamps[place] != stamp:
            self._stamps[place] = stamp
            self._slots[place] = [0.0] * 5
        slot = self._slots[place]
        for column, more in enumerate((count, duration_s, first_count, first_s, tokens)):
            slot[column] += more

    def means(self, now: float) -> dict[str, float]:
        """`response_time` and `ttft` in seconds (0 without any), `tokens_per_second`."""
        count, duration, first_count, first, tokens = self._sums(now)
        return {
            "response_time": duration / count if count else 0.0,
            "ttft": first / first_count if first_count else 0.0,
            "tokens_per_second": tokens / (self._SLOT_S * self._COUNT),
        }

    def ended(self, now: float) -> float:
        """Exchanges that ended in the last minute."""
        return self._sums(now)[0]

    def _sums(self, now: float) -> list[float]:
        oldest = int(now / self._SLOT_S) - self._COUNT + 1
        live = [s for s, stamp in zip(self._slots, self._stamps, strict=True) if stamp >= oldest]
        return [sum(slot[place] for slot in live) for place in range(5)]
