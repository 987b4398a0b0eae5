"""The most a request may cost, in tokens, before anything is sent: pure arithmetic on its bytes.

No tokenizer yields more tokens than a text has bytes (byte-level BPE, vLLM's models), and JSON adds
more bytes to a message than a chat template adds tokens. What bytes cannot tell has a constant of
its own: the template's frame, and media that are named by a link or are small but large in pixels.
"""

from __future__ import annotations

import re

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
_AUDIO_CHUNK_BYTES = 30_000
"""Half a minute of speech takes at least so much; engines transcribe it in one piece."""
_MEDIA_MARKS = (
    b'_url"',
    b'_embeds"',
    b'"image"',
    b'"video"',
    b'"audio"',
    b'"file"',
    b'"document"',
    b'"input_image"',
    b'"input_audio"',
    b'"input_file"',
)
_UNCOUNTED_MARKS = (b'"documents"', b'"reasoning_effort"')
"""What a chat template may render and `/tokenize` does not take (vLLM 0.32.0)."""
_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
_UNSET = msgspec.UNSET


class Cost(msgspec.Struct, frozen=True, gc=False):
    """The most a request may cost. The sum is the bound; a context's length caps it as a whole.

    Attributes:
        prompt_tokens: of all prompts together.
        completion_tokens: of all answers together, in what the prompts leave of the context.
        least_tokens: that an answer must be let have, for all answers together.
        choices: answers that the limit on tokens counts for one by one.
        limit_field: the body's field that bounds an answer; None where there is none.
        must_limit: the engine alone would not keep to the bound, so it has to be written.
        frame: that is in it, for what stands around a prompt; 0 where the engine has counted.
        frames: how often it is.
    """

    prompt_tokens: int
    completion_tokens: int
    least_tokens: int = 0
    choices: int = 1
    limit_field: str | None = None
    must_limit: bool = False
    frame: int = 0
    frames: int = 1


_NOTHING = Cost(0, 0)


class _Schemas(msgspec.Struct, gc=False):
    """What a model is only told of: words, whatever their keys are called."""

    tools: msgspec.Raw = msgspec.Raw(b"null")
    response_format: msgspec.Raw = msgspec.Raw(b"null")


_decode_schemas = msgspec.json.Decoder(_Schemas).decode


def most(  # noqa: PLR0917 - all of them, always: keywords cost time here
    path: InferencePath,
    fields: Fields,
    body: bytes,
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
    if path.free:
        return _NOTHING
    if path.multipart:
        return _audio(body, context)
    if counted is None:
        prompt = len(body) + frame
        # Where a conversation is the only list, there are no media in it.
        first = body.find(b"[")
        if first >= 0 and (path.media_lists < 2 or first != body.rfind(b"[")):
            prompt += _media_shown(body) * MEDIA_TOKENS
    else:
        prompt, frame = counted, 0
    if not path.converses:
        if path.repeats:
            pairs = _pairs(fields)
            prompt += pairs * (_before_each(fields) + frame)
            return Cost(prompt, 0, frame=frame, frames=max(1, pairs))
        if not path.limits:
            return Cost(prompt, 0, frame=frame)
        prompt += _items(fields.prompt_embeds) * MEDIA_TOKENS
        if path.kind == "responses" and bytes(memoryview(fields.previous_response_id)) != b"null":
            prompt += context or UNKNOWN_CONTEXT_TOKENS  # the earlier turns are with the engine
    return _generating(path, fields, prompt, context, frame)


def _generating(
    path: InferencePath, fields: Fields, prompt: int, context: int | None, frame: int
) -> Cost:
    prompts = choices = least = 1
    converses = path.converses
    if not converses or fields.n is not None or fields.best_of is not None:
        prompts, choices = _answers(path, fields)
        least = choices
    if fields.min_tokens is not None:
        least *= max(1, fields.count("min_tokens") or 1)
    if converses and fields.max_tokens is _UNSET and fields.max_completion_tokens is None:
        each, limit_field = None, path.limits[-1]
    else:
        each, limit_field = _limit(path, fields)
    if context is None:
        must_limit = each is None
        completion = choices * (UNKNOWN_CONTEXT_TOKENS if each is None else max(0, each))
    else:
        must_limit = False
        room = context * prompts
        # The hot path: a comparison takes a fifth of the time of min() or max().
        if prompt > room:  # noqa: PLR1730
            prompt = room
        completion = context * choices - prompt
        if each is not None and each * choices < completion:
            completion = each * choices
        if completion < choices:  # noqa: PLR1730
            completion = choices
    if least > completion:
        least = completion or 1
    return Cost(prompt, completion, least, choices, limit_field, must_limit, frame)


def _answers(path: InferencePath, fields: Fields) -> tuple[int, int]:
    """At most so many prompts, and so many answers to them."""
    prompts = _prompts(fields) if path.kind == "completions" else 1
    return prompts, prompts * max(1, fields.count("n") or 1, fields.count("best_of") or 1)


def _limit(path: InferencePath, fields: Fields) -> tuple[int | None, str]:
    """The most tokens an answer may have by the body, or None; and the field that says so."""
    name = ""
    for name in path.limits:
        value = getattr(fields, name)
        if value is not None and value is not _UNSET:
            each = fields.count(name)
            if each is not None:
                return each, name
    if path.kind == "completions" and fields.max_tokens is _UNSET:
        return _COMPLETIONS_DEFAULT_TOKENS, name  # a null means the rest of the context
    return None, name


def is_countable(path: InferencePath, fields: Fields, body: bytes) -> bool:
    """Whether the engine's `/tokenize` can tell the true size of a request's prompt.

    It takes one prompt, without media; a body of both kinds (`prompt` and `messages`) it would
    take for the other kind, and some of what a template renders it does not take at all.
    """
    plain = _plain(body)
    if any(mark in plain for mark in _UNCOUNTED_MARKS):
        return False
    if body.count(b"[") > 1 and _media_shown(body):
        return False
    if path.kind == "completions":
        return _prompts(fields) == 1 and not _items(fields.prompt_embeds)
    return path.kind == "chat" and bytes(memoryview(fields.prompt)) == b"null"


def _audio(body: bytes, context: int | None) -> Cost:
    """A recording is cut into pieces of half a minute, each with a context of its own.

    Nothing in the form bounds an answer, so all of it must fit.
    """
    pieces = 1 + len(body) // _AUDIO_CHUNK_BYTES
    each = context or UNKNOWN_CONTEXT_TOKENS
    rest = each * (2 * pieces - 1)
    return Cost(min(len(body), each), rest, rest)


def _plain(body: bytes) -> bytes:
    """`body` with escaped ASCII written out, so that no key hides behind an escape."""
    if b"\\u00" not in body:
        return body
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), body)


def _media(body: bytes) -> int:
    """At most so many images, videos and sounds."""
    plain = _plain(body)
    return sum(plain.count(mark) for mark in _MEDIA_MARKS)


def _media_shown(body: bytes) -> int:
    """The same, without what is but a name in the schema of a tool or of an answer."""
    marks = _media(body)
    if marks and (b'"tools"' in body or b'"response_format"' in body):
        schemas = _decode_schemas(body)
        marks -= _media(bytes(schemas.tools)) + _media(bytes(schemas.response_format))
    return marks


def _prompts(fields: Fields) -> int:
    """At most so many prompts are in a request, as text, token ids or embeddings."""
    return max(1, _items(fields.prompt) + _items(fields.prompt_embeds))


def _items(given: msgspec.Raw) -> int:
    """At most so many are given: a text, token ids, or a list of either."""
    raw = bytes(memoryview(given))
    if not raw.startswith(b"["):
        return int(raw != b"null")
    return max(1, raw.count(b'"') // 2, raw.count(b"[") - 1)


def _before_each(fields: Fields) -> int:
    """Rerank and score put query and instruction before every document."""
    queries = map(bytes, (fields.query, fields.queries, fields.text_1, fields.data_1))
    query = max(len(raw) + (_media(raw) * MEDIA_TOKENS if b"{" in raw else 0) for raw in queries)
    return query + len(fields.instruction)


def _pairs(fields: Fields) -> int:
    """At most so many pairs of a query and a document."""
    documents = max(
        bytes(memoryview(raw)).count(b'"') // 2
        for raw in (fields.documents, fields.items, fields.text_2, fields.data_2)
    )
    queries = bytes(memoryview(fields.queries)).count(b'"') // 2
    return max(documents, queries)
