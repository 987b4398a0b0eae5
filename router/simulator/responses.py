"""`POST /v1/responses`, unary and streamed; nothing is stored, as is vLLM's default."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from router.simulator.body import Body, flag, mapping, number, read_json, string
from router.simulator.conversation import render
from router.simulator.engine import Sequence
from router.simulator.errors import ApiError, missing
from router.simulator.frontend import FRONTEND, Frontend, json_answer, new_id, utf8
from router.simulator.sampling import read_sampling
from router.simulator.sse import encode, named
from router.simulator.text import FinishReason, Token
from router.simulator.tokens import Prompt
from router.simulator.usage import usage_of

_DELTA = (
    b'event: response.output_text.delta\ndata: {"content_index":0,"delta":%b,"item_id":%b,'
    b'"logprobs":[],"output_index":0,"sequence_number":%d,"type":"response.output_text.delta"}\n\n'
)
_NO_STORE = (
    "This vLLM engine does not support `store=True` and therefore does not support the background"
    " mode. To enable these features, set the environment variable"
    " `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)


async def responses(request: web.Request) -> web.StreamResponse:
    """Answer an input, whole or as a stream."""
    frontend = request.app[FRONTEND]
    body = await read_json(request)
    prompt = _prompt(body, frontend)
    model = frontend.model(body)
    utf8(json.dumps(mapping(body, "metadata"), ensure_ascii=False))  # it is sent back
    if flag(body, "background"):
        raise ApiError(_NO_STORE, kind="invalid_request_error", param="background")
    if body.get("previous_response_id") is not None:
        raise _not_found(str(body["previous_response_id"]))
    sampling = read_sampling(body, frontend.settings, limits=("max_output_tokens",), logprobs=None)
    jobs = frontend.jobs([prompt], sampling)
    limit = sampling.max_tokens or frontend.settings.max_model_len - prompt.tokens
    answer = ResponseForm(
        f"resp_{new_id()}", f"msg_{new_id()}", model, limit, body, int(time.time())
    )
    if flag(body, "stream"):
        return await frontend.stream(request, jobs, ResponseEvents(answer))
    sequences, tokens = await frontend.collect(request, jobs)
    text = "".join(token.text for token in tokens[0])
    return json_answer(answer.finished(text, tokens[0][-1].finish, sequences))


async def get_response(request: web.Request) -> web.StreamResponse:
    """No response is ever stored: 404."""
    raise _not_found(request.match_info["response_id"])


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """The JSON of one response, in progress and finished."""

    response_id: str
    item_id: str
    model: str
    max_output_tokens: int
    body: Body
    created_at: int

    def in_progress(self) -> dict[str, Any]:
        """Before the first token."""
        return self._form("in_progress", None, [], None)

    def finished(
        self, text: str, finish: FinishReason | None, sequences: list[Sequence]
    ) -> dict[str, Any]:
        """After the last one."""
        cut = finish is FinishReason.LENGTH
        status = "incomplete" if cut else "completed"
        reason = {"reason": "max_output_tokens"} if cut else None
        return self._form(status, reason, [self.item(text)], _usage(sequences))

    def item(self, text: str) -> dict[str, Any]:
        """The one message of the output."""
        return {
            "id": self.item_id,
            "content": [self.part(text)],
            "role": "assistant",
            "status": "completed",
            "type": "message",
            "phase": None,
        }

    def part(self, text: str) -> dict[str, Any]:
        """The one part of that message."""
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}

    def _form(
        self, status: str, incomplete: object, output: list[dict[str, Any]], usage: object
    ) -> dict[str, Any]:
        temperature, top_p = number(self.body, "temperature"), number(self.body, "top_p")
        return {
            "id": self.response_id,
            "created_at": self.created_at,
            "incomplete_details": incomplete,
            "instructions": self.body.get("instructions"),
            "metadata": self.body.get("metadata"),
            "model": self.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0 if temperature is None else temperature,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if top_p is None else top_p,
            "background": False,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": None,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }


class ResponseEvents:
    """Events of one response stream."""

    def __init__(self, form: ResponseForm) -> None:
        self._form = form
        self._item_id = encode(form.item_id)
        self._number = -1
        self._text: list[str] = []
        self._last = Token("")

    def opening(self) -> list[bytes]:
        """The response, its one message, that message's one part."""
        item = {**self._form.item(""), "content": [], "status": "in_progress"}
        part = {**self._form.part(""), "logprobs": []}
        return [
            self._event("response.created", {"response": self._form.in_progress()}),
            self._event("response.in_progress", {"response": self._form.in_progress()}),
            self._event("response.output_item.added", {"item": item, "output_index": 0}),
            self._event(
                "response.content_part.added",
                {"content_index": 0, "item_id": item["id"], "output_index": 0, "part": part},
            ),
        ]

    def delta(self, sequence: Sequence, tokens: list[Token]) -> list[bytes]:
        """A piece of the text."""
        del sequence  # a response has one
        self._last = tokens[-1]
        text = "".join(token.text for token in tokens)
        if not text:
            return []
        self._text.append(text)
        self._number += 1
        return [_DELTA % (encode(text), self._item_id, self._number)]

    def closing(self, sequences: list[Sequence]) -> list[bytes]:
        """The end of the text, the part, the message and the response."""
        text = "".join(self._text)
        place = {"content_index": 0, "item_id": self._form.item_id, "output_index": 0}
        whole = self._form.finished(text, self._last.finish, sequences)
        return [
            self._event("response.output_text.done", {**place, "logprobs": [], "text": text}),
            self._event("response.content_part.done", {**place, "part": self._form.part(text)}),
            self._event(
                "response.output_item.done", {"item": self._form.item(text), "output_index": 0}
            ),
            self._event("response.completed", {"response": whole}),
        ]

    def _event(self, kind: str, value: dict[str, Any]) -> bytes:
        self._number += 1
        whole = {**value, "sequence_number": self._number, "type": kind}
        return named(dict(sorted(whole.items())))


def _prompt(body: Body, frontend: Frontend) -> Prompt:
    given = body.get("input")
    if given is None:
        # vLLM has put an id of its own into the body by the time it finds this.
        raise missing("body.input", {**body, "request_id": None})
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(turns, list):
        raise ApiError("input must be a string or a list of items.", param="input")
    instructions = string(body, "instructions")
    if instructions:
        turns = [{"role": "system", "content": instructions}, *turns]
    return frontend.prompt(render(turns, body.get("tools")))


def _usage(sequences: list[Sequence]) -> dict[str, Any]:
    usage = usage_of(sequences, 1, 1)
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": usage.completion,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": usage.total,
    }


def _not_found(response_id: str) -> ApiError:
    message = f"Response with id '{response_id}' not found."
    return ApiError(message, status=404, kind="invalid_request_error", param="response_id")
