"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from router.simulator.body import Body, array, flag, integer, read_json
from router.simulator.chat_events import ChatEvents
from router.simulator.conversation import render
from router.simulator.errors import missing
from router.simulator.frontend import FRONTEND, Frontend, Job, body_id, json_answer, new_id
from router.simulator.logprobs import chat_logprobs
from router.simulator.sampling import (
    Sampling,
    Streaming,
    output_limit,
    read_sampling,
    read_streaming,
)
from router.simulator.sse import FINGERPRINT
from router.simulator.text import FinishReason, Script, Token, pieces
from router.simulator.tokens import Prompt
from router.simulator.tools import ToolCall, read_json_answer, read_tool_call
from router.simulator.usage import unary_usage, usage_of

_LIMITS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A checked chat request.

    Attributes:
        model: served name.
        prompt: the rendered conversation.
        sampling: how to answer.
        streaming: whether and how to stream.
        tool: the call that the answer has to be, if it has to be one.
        fixed: the JSON text that the answer has to be, if it has to be one.
    """

    model: str
    prompt: Prompt
    sampling: Sampling
    streaming: Streaming
    tool: ToolCall | None
    fixed: str | None


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, whole or as a stream."""
    return await answer_chat(request, await read_json(request))


async def answer_chat(request: web.Request, body: Body) -> web.StreamResponse:
    """Answer a chat request whose body has been read."""
    frontend = request.app[FRONTEND]
    call = read_chat(body, frontend)
    jobs = chat_jobs(call, frontend)
    answer_id = body_id(request, "chatcmpl-")
    if call.streaming.stream:
        events = ChatEvents(
            answer_id=answer_id,
            model=call.model,
            prompt_tokens=call.prompt.tokens,
            sampling=call.sampling,
            streaming=call.streaming,
            tool=call.tool,
            block_size=frontend.settings.block_size,
        )
        return await frontend.stream(request, jobs, events)
    sequences, tokens = await frontend.collect(request, jobs)
    usage = usage_of(sequences, call.sampling.n, frontend.settings.block_size)
    return json_answer(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": call.model,
            "choices": [_choice(i, made, call) for i, made in enumerate(tokens)],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": unary_usage(usage, usage.created),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def read_chat(body: Body, frontend: Frontend) -> ChatCall:
    """Check a chat request.

    Raises:
        ApiError: what vLLM would say is wrong with it.
    """
    messages = array(body, "messages")
    if messages is None:
        raise missing("body.messages", body)
    streaming = read_streaming(body, force_usage=frontend.settings.force_include_usage)
    tool = read_tool_call(body)
    model = frontend.model(body)
    alternatives = (integer(body, "top_logprobs") or 0) if flag(body, "logprobs") else None
    sampling = read_sampling(body, frontend.settings, limits=_LIMITS, logprobs=alternatives)
    prompt = frontend.prompt(render(messages, body.get("tools")))
    return ChatCall(model, prompt, sampling, streaming, tool, read_json_answer(body))


def chat_jobs(call: ChatCall, frontend: Frontend) -> list[Job]:
    """The sequences that answer a chat request."""
    fixed = call.tool.arguments if call.tool else call.fixed
    if fixed is None:
        return frontend.jobs([call.prompt], call.sampling)
    limit = output_limit(call.prompt, call.sampling.max_tokens, frontend.settings.max_model_len)
    return [(call.prompt, Script(pieces(fixed), limit)) for _ in range(call.sampling.n)]


def finish_reason(finish: FinishReason | None, tool: ToolCall | None) -> str | None:
    """`finish_reason` as chat reports it: a call that was asked for without a name has its own."""
    if finish is FinishReason.STOP and tool is not None and not tool.named:
        return "tool_calls"
    return finish


def _choice(index: int, tokens: list[Token], call: ChatCall) -> dict[str, Any]:
    text = "".join(token.text for token in tokens)
    last = tokens[-1]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "" if call.tool else text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if call.tool is not None:
        function = {"name": call.tool.name, "arguments": text}
        tool_call = {"id": f"chatcmpl-tool-{new_id()}", "type": "function", "function": function}
        message["tool_calls"] = [tool_call]
    message["reasoning"] = None
    alternatives = call.sampling.logprobs
    return {
        "index": index,
        "message": message,
        "logprobs": None if alternatives is None else chat_logprobs(tokens, alternatives),
        "finish_reason": finish_reason(last.finish, call.tool),
        "stop_reason": last.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }
