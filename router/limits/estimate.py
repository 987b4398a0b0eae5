"""What prompts of a model really cost beyond their bytes, learnt from what engines report."""

from __future__ import annotations

from router.openai.cost import FRAME_TOKENS

_MAX_MODELS = 1024
_MARGIN = 1.25


class PromptFrames:
    """For each model, the tokens to add to a prompt's bytes so that the sum is an upper bound.

    Begins at `FRAME_TOKENS` and rises at once when a request cost more than it was taken for (a
    long default system prompt, a media type the bytes do not show). It never falls: a bound that
    was too low once may be again.
    """

    def __init__(self) -> None:
        self._frames: dict[str, int] = {}

    def frame(self, model: str) -> int:
        """Tokens to add for `model`."""
        return self._frames.get(model, FRAME_TOKENS)

    def learn(self, model: str, bound: int, prompt_tokens: int) -> None:
        """A prompt that was taken for at most `bound` tokens did cost `prompt_tokens`."""
        if prompt_tokens <= bound:
            return
        known = model in self._frames or len(self._frames) < _MAX_MODELS
        if known:
            frame = self.frame(model)
            self._frames[model] = int((frame + prompt_tokens - bound) * _MARGIN)
