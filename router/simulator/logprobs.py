"""Log probabilities that look right: negative, the same for the same token, best first."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

from router.simulator.text import Token, words


def logprob(text: str) -> float:
    """A log probability for a token's text, between -4 and 0."""
    return -(zlib.crc32(text.encode()) % 4096) / 1024


def chat_logprobs(tokens: list[Token], alternatives: int) -> dict[str, Any]:
    """The `logprobs` of a chat choice over these tokens."""
    content = []
    for token in tokens:
        entry = _entry(token.text, logprob(token.text))
        ranked = [_entry(text, value) for text, value in _ranked(token.text, alternatives)]
        content.append({**entry, "top_logprobs": ranked})
    return {"content": content}


def completion_logprobs(tokens: list[Token], alternatives: int, offset: int) -> dict[str, Any]:
    """The `logprobs` of a completion choice; `offset` is where its text begins."""
    texts = [token.text for token in tokens]
    ends = itertools.accumulate(map(len, texts), initial=offset)
    return {
        "text_offset": list(itertools.islice(ends, len(texts))),
        "token_logprobs": [logprob(text) for text in texts],
        "tokens": texts,
        "top_logprobs": [dict(_ranked(text, max(1, alternatives))) for text in texts],
    }


def _ranked(text: str, count: int) -> list[tuple[str, float]]:
    others = itertools.islice(words(zlib.crc32(text.encode())), max(0, count - 1))
    ranked = [(text, logprob(text))]
    for place, other in enumerate(others, start=1):
        ranked.append((other, ranked[0][1] - place / 2))
    return ranked[:count]


def _entry(text: str, value: float) -> dict[str, Any]:
    return {"token": text, "logprob": value, "bytes": list(text.encode())}
