"""The most a request may cost, in tokens, before anything is sent: pure arithmetic on its bytes.

No tokenizer yields more tokens than a text has bytes (byte-level BPE, vLLM's models), and JSON adds
more bytes to a message than a chat template adds tokens. What bytes cannot tell has a constant of
its own: the template's frame, and media that are named by a link or are small but large in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from router.openai.body import Fields
from router.openai.paths import InferencePath

FRAME_TOKENS = 256
"""For what a chat template puts around messages, its default system prompt included."""
MEDIA_TOKENS = 16_384
"""For an image, a video or a sound whose size bytes do not tell."""
UNKNOWN_CONTEXT_TOKENS = 4_096
"""For an answer whose length neither the client nor the engine bounds."""
_COMPLETIONS_DEFAULT_TOKENS = 16
_MEDIA_MARKS = {
    "chat": (b'_url"', b'"input_audio"'),
    "messages": (b'"image"', b'"document"'),
    "responses": (b'"input_image"', b'"input_file"'),
}
_LIMIT_FIELDS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
_FREE = frozenset({"tokenize", "detokenize", "count_tokens"})
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Cost:
    """Upper bounds.

    Attributes:
        prompt_tokens: of all prompts together.
        completion_tokens: of all answers together.
        choices: answers that the limit on tokens counts for one by one.
        limit_field: the body's field that bounds an answer; None where there is none.
        must_limit: the engine alone would not keep to the bound, so it has to be written.
        exact: the engine's `/tokenize` can tell the prompt's true size.
    """

    prompt_tokens: int
    completion_tokens: int
    choices: int = 1
    limit_field: str | None = None
    must_limit: bool = False
    exact: bool = False


def most(
    path: InferencePath,
    fields: Fields,
    body: bytes,
    *,
    context: int | None,
    frame: int,
    counted: int | None = None,
) -> Cost:
    """The most that a request may cost.

    Args:
        path: what is asked for.
        fields: what was read of the body.
        body: all of it.
        context: the model's context length in tokens; None when it is not known.
        frame: tokens to add to every prompt, see `FRAME_TOKENS`.
        counted: the prompt's true size, where the engine has told it.
    """
    if path.kind in _FREE:
        return Cost(0, 0)
    media = sum(body.count(mark) for mark in _MEDIA_MARKS.get(path.kind, ()))
    prompt = len(body) + frame + media * MEDIA_TOKENS if counted is None else counted
    if path.kind in {"rerank", "score"} and counted is None:
        prompt += _repeated(fields)
    if not path.generates:
        return Cost(prompt, 0)
    if path.multipart:
        return Cost(min(prompt, context or prompt), context or UNKNOWN_CONTEXT_TOKENS)
    return _generating(path, fields, prompt, context, exact=not media)


def _generating(
    path: InferencePath, fields: Fields, prompt: int, context: int | None, *, exact: bool
) -> Cost:
    prompts = _prompts(fields) if path.kind == "completions" else 1
    choices = max(1, fields.count("n") or 1, fields.count("best_of") or 1) * prompts
    names = _LIMIT_FIELDS[path.kind]
    told = [name for name in names if fields.count(name) is not None]
    limit_field = told[0] if told else names[-1]
    each = fields.count(limit_field)
    must_limit = False
    if each is None and path.kind == "completions":
        each = _COMPLETIONS_DEFAULT_TOKENS
    if each is None:
        each = context or UNKNOWN_CONTEXT_TOKENS
        must_limit = context is None
    completion = max(0, each) * choices
    if context is not None:
        prompt = min(prompt, context * prompts)
        completion = max(min(completion, context * choices - prompt), choices)
    return Cost(
        prompt,
        completion,
        choices,
        limit_field,
        must_limit,
        exact=exact and prompts == 1 and path.kind in {"chat", "completions"},
    )


def _prompts(fields: Fields) -> int:
    """At most so many prompts are in `prompt`: a text, token ids, or a list of either."""
    raw = memoryview(fields.prompt).tobytes()
    if not raw.startswith(b"["):
        return 1
    return max(1, raw.count(b'"') // 2, raw.count(b"[") - 1)


def _repeated(fields: Fields) -> int:
    """Rerank and score put the query before every document."""
    query = max(len(fields.query), len(fields.text_1))
    documents = memoryview(fields.documents).tobytes() + memoryview(fields.text_2).tobytes()
    return query * (documents.count(b'"') // 2)
