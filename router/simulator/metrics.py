"""`/metrics`: the engine's state under the names that vLLM gives it."""

from __future__ import annotations

from collections.abc import Iterable

from router.simulator.engine import Engine
from router.simulator.text import FinishReason

_SLEEP_HELP = (
    "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake;"
    " weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2."
)
_Sample = tuple[str, float]
_FINISHED = (*FinishReason, "error", "repetition")


def render(engine: Engine, model: str) -> str:
    """The engine's metrics in Prometheus' text format, labelled with the first served name."""
    label = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    name = f'model_name="{label}"'
    base = f'engine="0",{name}'
    families = (*_gauges(engine, base), *_counters(engine, base, name))
    return "".join(_family(*family) for family in families)


def _gauges(engine: Engine, base: str) -> Iterable[tuple[str, str, str, list[_Sample]]]:
    level = engine.sleep_level
    states = {"awake": level == 0, "weights_offloaded": level == 1, "discard_all": level == 2}
    waiting = engine.num_waiting
    yield (
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
        [(base, engine.num_running)],
    )
    yield (
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        [(base, waiting)],
    )
    yield (
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason.",
        [(f'{base},reason="capacity"', waiting), (f'{base},reason="deferred"', 0)],
    )
    yield (
        "vllm:engine_sleep_state",
        "gauge",
        _SLEEP_HELP,
        [(f'{base},sleep_state="{state}"', on) for state, on in states.items()],
    )
    yield (
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage. 1 means 100 percent usage.",
        [(base, engine.kv_cache_usage)],
    )


def _counters(
    engine: Engine, base: str, name: str
) -> Iterable[tuple[str, str, str, list[_Sample]]]:
    counters = engine.counters
    plain = (
        ("prefix_cache_queries", "queried tokens", counters.prefix_cache_queries),
        ("prefix_cache_hits", "cached tokens", counters.prefix_cache_hits),
    )
    for metric, unit, value in plain:
        text = f"Prefix cache {metric.rsplit('_', 1)[1]}, in terms of number of {unit}."
        yield f"vllm:{metric}_total", "counter", text, [(base, value)]
    yield (
        "vllm:num_preemptions_total",
        "counter",
        "Cumulative number of preemption from the engine.",
        [(base, 0)],
    )
    yield (
        "vllm:prompt_tokens_total",
        "counter",
        "Number of prefill tokens processed.",
        [(base, counters.prompt_tokens)],
    )
    yield (
        "vllm:generation_tokens_total",
        "counter",
        "Number of generation tokens processed.",
        [(base, counters.generation_tokens)],
    )
    yield (
        "vllm:request_success_total",
        "counter",
        "Count of successfully processed requests.",
        [
            (f'engine="0",finished_reason="{reason}",{name}', _finished(engine, reason))
            for reason in _FINISHED
        ],
    )
    yield (
        "vllm:admission_rejections_total",
        "counter",
        "Number of admission attempts rejected by a queue limit, by reason.",
        [(f'{name},reason="max_num_queued_reqs"', counters.rejected)],
    )


def _finished(engine: Engine, reason: str) -> int:
    known = {str(key): value for key, value in engine.counters.finished.items()}
    return known.get(reason, 0)


def _family(name: str, kind: str, text: str, samples: list[_Sample]) -> str:
    rows = "".join(f"{name}{{{labels}}} {float(value)!r}\n" for labels, value in samples)
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{rows}"
