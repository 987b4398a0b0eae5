"""The inference paths that may cross to an engine, and how each of them speaks.

A path that is not in this table (or a named route of the configuration) never reaches a backend:
an engine serves more than it guards (`/invocations` generates without a key, vLLM 0.32.0).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Dialect(enum.Enum):
    """The form of errors, in an answer and inside a stream."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class InferencePath:
    """One path of the contract.

    Attributes:
        kind: short name, used as a metrics label.
        upstream: the path that is sent to the engine.
        dialect: form of errors.
        multipart: the body is a form (audio), not JSON.
        free: it costs no tokens.
        limits: the body's fields that bound an answer, the one that counts first; none where the
            answer is not generated.
        tells_usage: its streams tell their usage where `stream_options` asks for it.
        converses: one conversation in, its next turn out, or `n` of them.
        repeats: a prompt's frame and the query stand before every document.
        media_lists: a body with media has at least so many lists; `messages` is one of them.
    """

    kind: str
    upstream: str
    dialect: Dialect = Dialect.OPENAI
    multipart: bool = False
    free: bool = False
    limits: tuple[str, ...] = ()
    tells_usage: bool = False
    converses: bool = False
    repeats: bool = False
    media_lists: int = 2


CHAT = InferencePath(
    "chat",
    "/v1/chat/completions",
    limits=("max_completion_tokens", "max_tokens"),
    tells_usage=True,
    converses=True,
)

_PATHS = (
    CHAT,
    InferencePath("completions", "/v1/completions", limits=("max_tokens",), tells_usage=True),
    InferencePath("embeddings", "/v1/embeddings"),
    InferencePath("responses", "/v1/responses", Dialect.RESPONSES, limits=("max_output_tokens",)),
    InferencePath(
        "messages", "/v1/messages", Dialect.ANTHROPIC, limits=("max_tokens",), converses=True
    ),
    InferencePath("count_tokens", "/v1/messages/count_tokens", Dialect.ANTHROPIC, free=True),
    InferencePath("rerank", "/v1/rerank", repeats=True, media_lists=1),
    InferencePath("score", "/v1/score", repeats=True, media_lists=1),
    InferencePath("pooling", "/pooling"),
    InferencePath("classify", "/classify"),
    InferencePath("tokenize", "/tokenize", free=True),
    InferencePath("detokenize", "/detokenize", free=True),
    InferencePath("transcriptions", "/v1/audio/transcriptions", multipart=True),
    InferencePath("translations", "/v1/audio/translations", multipart=True),
)

BY_UPSTREAM = {path.upstream: path for path in _PATHS}
"""Path as the engine knows it -> its row."""

KINDS = tuple(path.kind for path in _PATHS)


def _spellings(upstream: str) -> tuple[str, str]:
    bare = upstream.removeprefix("/v1")
    return bare, "/v1" + bare


INFERENCE_PATHS = {spelling: path for path in _PATHS for spelling in _spellings(path.upstream)}
"""Path as a client may write it (`/v1/...` or bare) -> its row."""
