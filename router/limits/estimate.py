"""What engines report, held against what requests were taken for: learnt from, or not believed."""

from __future__ import annotations

from router.model import Usage
from router.openai.cost import FRAME_TOKENS, MEDIA_TOKENS, Cost

_MAX_MODELS = 1024
_MARGIN = 1.25
_TURNS = 16
"""Of an engine that uses tools of its own within one answer; each has a prompt in the context."""
_LARGEST_CONTEXT_TOKENS = 1_048_576
"""Where it is not known how long a model's context is."""


def believed(told: Usage, cost: Cost, granted: int, context: int | None) -> Usage:
    """As told; in place of a count that no engine can reach, what was held for it.

    What is more than that and yet fits in the contexts is charged: only the engine can know.

    Args:
        told: by the engine.
        cost: what the request was taken for.
        granted: tokens that were held for its answer.
        context: the model's context length in tokens; None when it is not known.
    """
    room = (context or _LARGEST_CONTEXT_TOKENS) * max(cost.choices, cost.frames) * _TURNS
    most = cost.prompt_tokens + cost.completion_tokens + room
    prompt, completion = told.prompt_tokens, told.completion_tokens
    if prompt <= most and completion <= most:
        return told
    return Usage(
        prompt if prompt <= most else cost.prompt_tokens,
        completion if completion <= most else granted,
    )


class PromptFrames(dict[str, int]):
    """Full name of a model -> tokens to add to a prompt's bytes so that the sum is an upper bound.

    Begins at `FRAME_TOKENS` and rises at once when a request cost more than it was taken for (a
    long default system prompt, a media type the bytes do not show). It never falls: a bound that
    was too low once may be again. Nor does it rise above the context: it is added to the prompts
    of everybody, so no answer to one client may make it more than any prompt can cost.
    """

    def __missing__(self, model: str) -> int:
        return FRAME_TOKENS

    def learn(self, model: str, cost: Cost, prompt_tokens: int, context: int | None) -> None:
        """What was taken for `cost` had a prompt of `prompt_tokens`.

        Args:
            model: that was asked.
            cost: with a frame of this model in it; without one there is nothing to learn.
            prompt_tokens: of all prompts together.
            context: the model's context length in tokens; None when it is not known.
        """
        more = prompt_tokens - cost.prompt_tokens
        known = model in self or len(self) < _MAX_MODELS
        if more > 0 and cost.frame and known:
            # Of the frame it was made with: many that run at once teach what one of them does.
            needed = int((cost.frame + -(-more // cost.frames)) * _MARGIN)
            self[model] = max(self[model], min(needed, context or MEDIA_TOKENS))
