"""Server-sent events as vLLM writes them."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "vllm-0.32.0-51301a7e"

#: JSON as bytes, compact, text left as UTF-8.
encode = msgspec.json.encode


def named(value: dict[str, Any]) -> bytes:
    """An event that is named after the `type` of what it carries."""
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), encode(value))
