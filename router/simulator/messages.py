"""`POST /v1/messages` and `/v1/messages/count_tokens`, Anthropic's form of a chat."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from router.simulator.body import Body, array, flag, read_json
from router.simulator.conversation import content_text, render
from router.simulator.engine import Sequence
from router.simulator.errors import missing
from router.simulator.frontend import FRONTEND, Frontend, Job, body_id, json_answer, new_id
from router.simulator.sampling import Sampling, output_limit, read_sampling
from router.simulator.sse import encode, named
from router.simulator.text import FinishReason, Script, Token, pieces
from router.simulator.tokens import Prompt
from router.simulator.tools import ToolCall, read_tool_use

_STOP_REASONS = {FinishReason.LENGTH: "max_tokens", FinishReason.ABORT: "abort"}
_TEXT_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":%b},"index":0}\n\n'
)
_JSON_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":%b},'
    b'"index":0}\n\n'
)


async def messages(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, whole or as a stream."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    if body.get("max_tokens") is None:
        raise missing("body.max_tokens", body)
    tool = read_tool_use(body)
    model = frontend.model(body)
    prompt = _prompt(body, frontend)
    stops = {"stop": body.get("stop_sequences")}
    limits = ("max_tokens",)
    sampling = read_sampling({**body, **stops}, frontend.settings, limits=limits, logprobs=None)
    jobs = _jobs(prompt, sampling, tool, frontend)
    answer_id = body_id(request, "chatcmpl-")
    if flag(body, "stream"):
        events = MessageEvents(answer_id, model, prompt.tokens, tool)
        return await frontend.stream(request, jobs, events)
    sequences, tokens = await frontend.collect(request, jobs)
    return json_answer(
        {
            "id": answer_id,
            "type": "message",
            "role": "assistant",
            "content": [_block("".join(token.text for token in tokens[0]), tool)],
            "model": model,
            "stop_reason": _stop_reason(tokens[0][-1], tool),
            "usage": _usage(sequences[0]),
        }
    )


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """The tokens that a conversation would cost."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    frontend.model(body)
    tokens = _prompt(body, frontend).tokens
    context = {"original_input_tokens": tokens}
    return json_answer({"input_tokens": tokens, "context_management": context})


class MessageEvents:
    """Events of one message stream."""

    def __init__(
        self, answer_id: str, model: str, prompt_tokens: int, tool: ToolCall | None
    ) -> None:
        self._answer_id = answer_id
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._tool = tool
        self._last = Token("")

    def opening(self) -> list[bytes]:
        """The message and its one block."""
        message: dict[str, Any] = {
            "id": self._answer_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self._prompt_tokens, "output_tokens": 0},
        }
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self._tool is not None:
            block = _tool_use(self._tool, {})
        return [
            named({"type": "message_start", "message": message}),
            named({"type": "content_block_start", "content_block": block, "index": 0}),
        ]

    def delta(self, sequence: Sequence, tokens: list[Token]) -> list[bytes]:
        """A piece of the block."""
        del sequence  # a message has one
        self._last = tokens[-1]
        text = "".join(token.text for token in tokens)
        if not text:
            return []
        return [(_TEXT_DELTA if self._tool is None else _JSON_DELTA) % encode(text)]

    def closing(self, sequences: list[Sequence]) -> list[bytes]:
        """The end of the block, what it cost, and the end of the message."""
        delta = {
            "stop_reason": _stop_reason(self._last, self._tool),
            "stop_sequence": self._last.stop_reason,
        }
        usage = _usage(sequences[0])
        return [
            named({"type": "content_block_stop", "index": 0}),
            named({"type": "message_delta", "delta": delta, "usage": usage}),
            named({"type": "message_stop"}),
        ]


def _prompt(body: Body, frontend: Frontend) -> Prompt:
    turns = array(body, "messages")
    if turns is None:
        raise missing("body.messages", body)
    system = body.get("system")
    if system:
        turns = [{"role": "system", "content": content_text(system)}, *turns]
    return frontend.prompt(render(turns, body.get("tools")))


def _jobs(
    prompt: Prompt, sampling: Sampling, tool: ToolCall | None, frontend: Frontend
) -> list[Job]:
    if tool is None:
        return frontend.jobs([prompt], sampling)
    limit = output_limit(prompt, sampling.max_tokens, frontend.settings.max_model_len)
    return [(prompt, Script(pieces(tool.arguments), limit))]


def _block(text: str, tool: ToolCall | None) -> dict[str, Any]:
    if tool is None:
        return {"type": "text", "text": text}
    try:
        given = msgspec.json.decode(text)
    except msgspec.DecodeError:  # max_tokens cut the arguments short
        return {"type": "text", "text": text}
    return _tool_use(tool, given)


def _tool_use(tool: ToolCall, given: object) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": f"chatcmpl-tool-{new_id()}",
        "name": tool.name,
        "input": given,
    }


def _stop_reason(last: Token, tool: ToolCall | None) -> str:
    if last.finish in _STOP_REASONS:
        return _STOP_REASONS[last.finish]
    if last.stop_reason is not None:
        return "stop_sequence"
    return "end_turn" if tool is None else "tool_use"


def _usage(sequence: Sequence) -> dict[str, int]:
    return {
        "input_tokens": sequence.prompt.tokens - sequence.cached,
        "output_tokens": sequence.generated,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": sequence.cached,
    }
