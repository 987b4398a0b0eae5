"""The engine as a model: continuous batching in steps, without a clock, a socket or a loop.

`plan` says what the next step does and how long it takes; whoever has a clock waits that long and
calls `commit`. Between the two, sequences may be submitted and aborted at any time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from router.simulator.prefix_cache import PrefixCache
from router.simulator.settings import SimulatorSettings
from router.simulator.text import FinishReason, Script, Token
from router.simulator.tokens import Prompt


class EngineBusy(Exception):
    """Taking these sequences would go over `max_num_queued_reqs`."""


class Output(Protocol):
    """Where a sequence's tokens go."""

    @property
    def closed(self) -> bool:
        """Whether nobody listens any more; the engine then ends the sequence as aborted."""
        ...

    def emit(self, sequence: Sequence, token: Token) -> None:
        """Take a token. Called at the end of a step; must not block or raise."""
        ...


@dataclass(slots=True, eq=False)
class Sequence:
    """One prompt and its answer in the making; the engine owns the counts.

    Attributes:
        prompt: what is asked.
        script: what will be answered; None where the prompt alone matters (embeddings).
        output: who gets the tokens.
        index: place among the sequences of the same request.
        cached: prompt tokens that the prefix cache spared.
        prefilled: prompt tokens that are in the KV cache.
        generated: tokens made so far.
    """

    prompt: Prompt
    script: Script | None
    output: Output
    index: int = 0
    cached: int = 0
    prefilled: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: prompt chunks to take in, sequences to advance, simulated seconds it takes."""

    prefill: tuple[tuple[Sequence, int], ...]
    decode: tuple[Sequence, ...]
    duration_s: float


@dataclass(slots=True)
class Counters:
    """What the engine has done since it started; all only grow."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    rejected: int = 0
    finished: Counter[FinishReason] = field(default_factory=Counter)


def step_seconds(settings: SimulatorSettings, decoding: int, prefill_tokens: int) -> float:
    """How long a step takes that advances `decoding` sequences and takes in `prefill_tokens`."""
    seconds = prefill_tokens / settings.prefill_tokens_per_s
    if decoding:
        seconds += (1 + settings.batch_slowdown * (decoding - 1)) / settings.decode_tokens_per_s
    return seconds


class Engine:
    """The only owner of sequences: waiting, running, and what they have cost."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._total_blocks = max(1, settings.kv_cache_tokens // settings.block_size)
        self._cache = PrefixCache(self._total_blocks)
        # Insertion-ordered sets: first come, first served, and an abort in constant time.
        self._waiting: dict[Sequence, None] = {}
        self._running: dict[Sequence, None] = {}
        self.counters = Counters()
        self.sleep_level = 0
        self.paused = False

    def __repr__(self) -> str:
        return f"<Engine running={self.num_running} waiting={self.num_waiting}>"

    # -- state ---------------------------------------------------------------------------------

    @property
    def num_running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a place in the batch."""
        return len(self._waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache that running sequences hold, 0 to 1."""
        return min(1.0, self._held_blocks() / self._total_blocks)

    def sleep(self, level: int) -> None:
        """Fall asleep: what is in flight ends as aborted, what comes later waits."""
        self.sleep_level = level
        self._abort_in_flight()
        self._cache.clear()

    def wake_up(self) -> None:
        """Be awake; sequences that waited go on at the next step."""
        self.sleep_level = 0

    def pause(self) -> None:
        """Stop stepping: what is in flight ends as aborted, what comes later waits."""
        self.paused = True
        self._abort_in_flight()

    def resume(self) -> None:
        """Step again."""
        self.paused = False

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix."""
        self._cache.clear()

    # -- sequences -----------------------------------------------------------------------------

    def submit(self, sequences: list[Sequence]) -> None:
        """Queue the sequences of one request, all or none.

        Raises:
            EngineBusy: too many are unfinished already.
        """
        limit = self._settings.max_num_queued_reqs
        unfinished = len(self._running) + len(self._waiting)
        if limit is not None and unfinished + len(sequences) > limit:
            self.counters.rejected += 1
            raise EngineBusy
        for sequence in sequences:
            self._waiting[sequence] = None

    def abort(self, sequences: Iterable[Sequence]) -> None:
        """Drop these, silently; those that have finished already are left alone."""
        for sequence in sequences:
            self._running.pop(sequence, None)
            self._waiting.pop(sequence, None)

    # -- steps ---------------------------------------------------------------------------------

    def plan(self) -> StepPlan | None:
        """What the next step does; None when there is nothing to do, or while asleep or paused."""
        if self.paused or self.sleep_level:
            return None
        self._admit()
        decode = tuple(s for s in self._running if s.prefilled >= s.prompt.tokens)
        prefill = self._chunks(max(1, self._settings.max_num_batched_tokens - len(decode)))
        if not decode and not prefill:
            return None
        tokens = sum(chunk for _, chunk in prefill)
        return StepPlan(prefill, decode, step_seconds(self._settings, len(decode), tokens))

    def commit(self, plan: StepPlan) -> None:
        """The step is over: its prompt chunks are in the cache, its tokens go out."""
        for sequence, chunk in plan.prefill:
            sequence.prefilled += chunk
            if sequence.prefilled >= sequence.prompt.tokens and sequence in self._running:
                self.counters.prompt_tokens += sequence.prompt.tokens
                self._cache.add(sequence.prompt.blocks)
                self._advance(sequence)
        for sequence in plan.decode:
            if sequence in self._running:
                self._advance(sequence)

    def _advance(self, sequence: Sequence) -> None:
        if sequence.output.closed:
            self.abort((sequence,))
            sequence.output.emit(sequence, Token("", FinishReason.ABORT))
            return
        if sequence.script is None:
            token = Token("", FinishReason.STOP)
        else:
            token = sequence.script.next()
            sequence.generated += 1
            self.counters.generation_tokens += 1
        if token.finish is not None:
            del self._running[sequence]
            self.counters.finished[token.finish] += 1
        sequence.output.emit(sequence, token)

    def _admit(self) -> None:
        places = self._settings.max_num_seqs - len(self._running)
        if places <= 0 or not self._waiting:
            return
        free = self._total_blocks - self._held_blocks()
        for sequence in list(itertools.islice(self._waiting, places)):
            free -= self._blocks(sequence.prompt.tokens)
            if free < 0 and self._running:
                return
            del self._waiting[sequence]
            self._running[sequence] = None
            self._look_up(sequence)

    def _look_up(self, sequence: Sequence) -> None:
        """Spare what the prefix cache holds; the last token is always computed."""
        prompt, block_size = sequence.prompt, self._settings.block_size
        usable = prompt.blocks[: max(0, prompt.tokens - 1) // block_size]
        sequence.cached = sequence.prefilled = self._cache.match(usable) * block_size
        self.counters.prefix_cache_queries += prompt.tokens
        self.counters.prefix_cache_hits += sequence.cached

    def _chunks(self, budget: int) -> tuple[tuple[Sequence, int], ...]:
        chunks: list[tuple[Sequence, int]] = []
        for sequence in self._running:
            missing = sequence.prompt.tokens - sequence.prefilled
            if missing > 0 and budget > 0:
                chunks.append((sequence, min(missing, budget)))
                budget -= missing
        return tuple(chunks)

    def _abort_in_flight(self) -> None:
        in_flight = [*self._running, *self._waiting]
        self.abort(in_flight)
        for sequence in in_flight:
            self.counters.finished[FinishReason.ABORT] += 1
            sequence.output.emit(sequence, Token("", FinishReason.ABORT))

    def _held_blocks(self) -> int:
        return sum(self._blocks(s.prompt.tokens + s.generated) for s in self._running)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._settings.block_size)
