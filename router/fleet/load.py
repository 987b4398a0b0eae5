"""An engine's own `/metrics`, as far as the router acts on it: a line scan for five series."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SERIES = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc"
    rb"|generation_tokens_total|prompt_tokens_total|engine_sleep_state)"
    rb"(\{[^\n]*\})? ([0-9.eE+-]+)\s*$",
    re.MULTILINE,
)
_AWAKE = b'sleep_state="awake"'


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine tells of itself (names of vLLM 0.32.0), summed over its processes.

    Attributes:
        running: sequences in the batch.
        waiting: sequences that wait for a place.
        kv_cache_usage: share of the KV cache in use, 0 to 1, the fullest process's.
        generated_tokens: since its start.
        prompt_tokens: since its start.
        awake: False while it sleeps (its memory is off the GPU).
    """

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    awake: bool = True


def parse_load(text: bytes) -> EngineLoad | None:
    """Read an exposition; None where it is not a vLLM's."""
    sums: dict[bytes, float] = {}
    fullest = 0.0
    awake = True
    for name, labels, value in _SERIES.findall(text):
        number = float(value)
        if not math.isfinite(number):
            return None
        if name == b"kv_cache_usage_perc":
            fullest = max(fullest, number)
        elif name == b"engine_sleep_state":
            if _AWAKE in labels:
                awake = awake and number > 0
        else:
            sums[name] = sums.get(name, 0.0) + number
    if b"num_requests_running" not in sums or not all(map(math.isfinite, sums.values())):
        return None
    return EngineLoad(
        running=int(sums[b"num_requests_running"]),
        waiting=int(sums.get(b"num_requests_waiting", 0)),
        kv_cache_usage=fullest,
        generated_tokens=int(sums.get(b"generation_tokens_total", 0)),
        prompt_tokens=int(sums.get(b"prompt_tokens_total", 0)),
        awake=awake,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """Whether an engine that has work gets on with it.

    Attributes:
        generated_tokens: at the latest change.
        prompt_tokens: at the latest change.
        since: when the counters moved last, or when there was last no work; seconds.
    """

    generated_tokens: int = -1
    prompt_tokens: int = -1
    since: float = 0.0


def next_progress(progress: Progress, load: EngineLoad, now: float) -> Progress:
    """Take a reading into account."""
    moved = (load.generated_tokens, load.prompt_tokens) != (
        progress.generated_tokens,
        progress.prompt_tokens,
    )
    if moved or not load.running:
        return Progress(load.generated_tokens, load.prompt_tokens, now)
    return progress
