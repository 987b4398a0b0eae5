"""How an answer is to be made: the fields of a request that say so, checked as vLLM checks them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from router.simulator.body import Body, flag, integer, mapping, number
from router.simulator.errors import ApiError, bad_value, invalid, prompt_too_long
from router.simulator.settings import SimulatorSettings
from router.simulator.text import Script, answer_length, mix, words
from router.simulator.tokens import Prompt

_MAX_N = 16_384
_MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """Checked sampling fields.

    Attributes:
        n: answers to each prompt.
        max_tokens: as asked for; None: the path's own default.
        min_tokens: tokens before which neither the end nor a stop string counts.
        ignore_eos: never end before `max_tokens`.
        stop: strings that end the answer.
        seed: the request's own seed.
        logprobs: alternatives to list for each token; None: no log probabilities.
    """

    n: int = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: int | None = None

    def script(
        self, prompt: Prompt, choice: int, limit: int, settings: SimulatorSettings
    ) -> Script:
        """What answer number `choice` to this prompt will be, `limit` tokens at most."""
        key = mix(settings.seed, self.seed, prompt.key, choice)
        source = words(key)
        if not self.ignore_eos:
            natural = max(answer_length(key, settings.answer_tokens), self.min_tokens)
            source = _first(source, natural)
        return Script(source, limit, self.stop, self.min_tokens)


@dataclass(frozen=True, slots=True)
class Streaming:
    """Whether and how to stream.

    Attributes:
        stream: events rather than one JSON.
        include_usage: usage at the end of the stream.
        continuous_usage: usage on every chunk.
    """

    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False


def read_streaming(body: Body, *, force_usage: bool) -> Streaming:
    """The fields `stream` and `stream_options`."""
    stream = flag(body, "stream")
    options = mapping(body, "stream_options")
    if options is not None and not stream:
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    include = force_usage or flag(options or {}, "include_usage")
    continuous = include and (force_usage or flag(options or {}, "continuous_usage_stats"))
    return Streaming(stream, include, continuous)


def read_sampling(
    body: Body, settings: SimulatorSettings, *, limits: tuple[str, ...], logprobs: int | None
) -> Sampling:
    """The sampling fields; `limits` are the path's names for the output limit, first wins."""
    _check_ranges(body)
    n = _read_n(body)
    if logprobs is not None and logprobs > _MAX_LOGPROBS:
        problem = f"Requested sample logprobs of {logprobs}, which is greater than max allowed:"
        raise bad_value(f"{problem} {_MAX_LOGPROBS}", "logprobs", logprobs)
    return Sampling(
        n=n,
        max_tokens=_read_limit(body, limits, settings.max_model_len),
        min_tokens=integer(body, "min_tokens") or 0,
        ignore_eos=flag(body, "ignore_eos"),
        stop=_read_stop(body),
        seed=integer(body, "seed") or 0,
        logprobs=logprobs,
    )


def output_limit(prompt: Prompt, requested: int | None, max_model_len: int) -> int:
    """Output tokens that are left for this prompt.

    Raises:
        ApiError: prompt and answer do not fit together.
    """
    if prompt.tokens >= max_model_len:
        raise prompt_too_long(max_model_len + 1, max_model_len)
    if requested is None:
        return max_model_len - prompt.tokens
    if prompt.tokens + requested > max_model_len:
        raise prompt_too_long(prompt.tokens, max_model_len, requested)
    return requested


def _first(source: Iterator[str], count: int) -> Iterator[str]:
    return (word for word, _ in zip(source, range(count), strict=False))


def _read_n(body: Body) -> int:
    given = integer(body, "n")
    n = 1 if given is None else given
    if n < 1:
        raise ApiError(f"n must be at least 1, got {n}.")
    if n > _MAX_N:
        remedy = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        raise ApiError(f"n must be at most {_MAX_N}, got {n}. {remedy}")
    return n


def _read_limit(body: Body, names: tuple[str, ...], max_model_len: int) -> int | None:
    values = (integer(body, name) for name in names)
    limit = next((value for value in values if value is not None), None)
    if limit is None:
        return None
    if limit < 1:
        raise bad_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if limit > max_model_len:
        problem = f"max_tokens={limit} cannot be greater than max_model_len={max_model_len}."
        raise bad_value(f"{problem} Please request fewer output tokens.", "max_tokens", limit)
    return limit


def _read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop") or []
    strings = tuple(stop) if isinstance(stop, list) else (stop,)
    if not all(isinstance(text, str) for text in strings):
        raise invalid("string_type", "body.stop", "Input should be a valid string", stop)
    if "" in strings:
        raise ApiError("stop cannot contain an empty string.")
    return strings


def _check_ranges(body: Body) -> None:
    temperature = number(body, "temperature")
    if temperature is not None:
        if not math.isfinite(temperature):
            problem = f"temperature must be a finite number, got {temperature}."
            raise bad_value(problem, "temperature", temperature)
        if temperature < 0:
            problem = f"temperature must be non-negative, got {temperature}."
            raise bad_value(problem, "temperature", temperature)
        if temperature > 2:
            problem = f"temperature must be in [0, 2], got {temperature}."
            raise bad_value(problem, "temperature", temperature)
    top_p = number(body, "top_p")
    if top_p is not None and not 0 < top_p <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
