"""Token counts of a request, in the forms that OpenAI's paths report them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from router.simulator.engine import Sequence


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What the sequences of one request have used.

    Attributes:
        prompt: prompt tokens; a prompt counts once, however many answers it gets.
        completion: generated tokens of all answers.
        cached: prompt tokens that the prefix cache spared.
        created: prompt tokens that are new in the prefix cache.
    """

    prompt: int
    completion: int
    cached: int
    created: int

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion


def usage_of(sequences: list[Sequence], n: int, block_size: int) -> RunUsage:
    """The usage of sequences of which each `n` share a prompt."""
    firsts = sequences[::n]
    cached = sum(s.cached for s in firsts)
    return RunUsage(
        prompt=sum(s.prompt.tokens for s in firsts),
        completion=sum(s.generated for s in sequences),
        cached=cached,
        created=max(0, sum(len(s.prompt.blocks) * block_size for s in firsts) - cached),
    )


def unary_usage(usage: RunUsage, created: int | None) -> dict[str, Any]:
    """`usage` of an answer that is not streamed; `created` is null on `/v1/completions`."""
    return {
        "prompt_tokens": usage.prompt,
        "total_tokens": usage.total,
        "completion_tokens": usage.completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "created_cache_tokens": created,
            "multimodal_tokens": None,
        },
        "completion_tokens_details": None,
    }


def pooling_usage(prompt_tokens: int) -> dict[str, Any]:
    """`usage` of embeddings, scores and their kin."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
