"""From messages to the text that a model would see."""

from __future__ import annotations

import json
import zlib
from typing import Any

from router.simulator.errors import ApiError, invalid

#: What an image or other attachment is worth, in repetitions of its mark (some 150 tokens).
_ATTACHMENT_REPEATS = 32


def render(messages: list[Any], tools: object = None) -> str:
    """The prompt of a chat, ending where the answer begins.

    Raises:
        ApiError: no messages, or one that is none.
    """
    if not messages:
        message = (
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
        raise ApiError(message)
    head = f"<|tools|>{json.dumps(tools, ensure_ascii=False)}\n" if tools else ""
    turns = [_turn(message, place) for place, message in enumerate(messages)]
    return f"{head}{''.join(turns)}<|assistant|>"


def content_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError("Content must be a string or a list of parts.")
    return "".join(_part(part) for part in content)


def _turn(message: object, place: int) -> str:
    if not isinstance(message, dict):
        loc = f"body.messages.{place}"
        raise invalid("dict_type", loc, "Input should be a valid dictionary", message)
    calls = message.get("tool_calls")
    extra = json.dumps(calls, ensure_ascii=False) if calls else ""
    return f"<|{message.get('role', 'user')}|>{content_text(message.get('content'))}{extra}\n"


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    mark = zlib.crc32(json.dumps(part, sort_keys=True).encode())
    return f"<|attachment {mark:08x}|>" * _ATTACHMENT_REPEATS
