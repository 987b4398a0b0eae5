"""The events of a chat stream, put together from bytes: only the text of a token is encoded."""

from __future__ import annotations

import time

from router.simulator.engine import Sequence
from router.simulator.frontend import new_id
from router.simulator.logprobs import chat_logprobs
from router.simulator.sampling import Sampling, Streaming
from router.simulator.sse import DONE, FINGERPRINT, encode
from router.simulator.text import FinishReason, Token
from router.simulator.tools import ToolCall
from router.simulator.usage import usage_of

_OPENING = (
    b'[{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
)
_TOOL_HEAD = (
    b'{"content":null,"tool_calls":[{"id":"chatcmpl-tool-%b","type":"function","index":0,'
    b'"function":{"name":%b}}]}'
)
_TOOL_DELTA = b'{"content":null,"tool_calls":[{"index":0,"function":{"arguments":%b}}]}'
_USAGE = (
    b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
    b'"completion_tokens_details":null}'
)
_FINAL_USAGE = (
    b'[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d,"created_cache_tokens":%d}}'
)
_FINGERPRINT = b',"system_fingerprint":"%b"' % FINGERPRINT.encode()


class ChatEvents:
    """Events of one `chat.completion.chunk` stream."""

    def __init__(
        self,
        *,
        answer_id: str,
        model: str,
        prompt_tokens: int,
        sampling: Sampling,
        streaming: Streaming,
        tool: ToolCall | None,
        block_size: int,
    ) -> None:
        self._head = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":'
            % (encode(answer_id), int(time.time()), encode(model))
        )
        self._prompt_tokens = prompt_tokens
        self._n = sampling.n
        self._alternatives = sampling.logprobs
        self._streaming = streaming
        self._tool = tool
        self._block_size = block_size
        self._unfinished = sampling.n

    def opening(self) -> list[bytes]:
        """The role of each choice, and for a tool call its name."""
        tail = b',"prompt_token_ids":null,"prompt_text":null'
        events = [self._chunk(_OPENING % i, self._usage(0) + tail) for i in range(self._n)]
        if self._tool is not None:
            name = encode(self._tool.name)
            for index in range(self._n):
                delta = _TOOL_HEAD % (new_id().encode(), name)
                events.append(self._chunk(self._choice(index, delta, b"null"), self._usage(0)))
        return events

    def delta(self, sequence: Sequence, tokens: list[Token]) -> list[bytes]:
        """One chunk of text, or of a tool call's arguments and its end."""
        text = tokens[0].text if len(tokens) == 1 else "".join(token.text for token in tokens)
        last = tokens[-1]
        usage = self._usage(sequence.generated)
        logprobs = b"null"
        if self._alternatives is not None:
            logprobs = encode(chat_logprobs(tokens, self._alternatives))
        if last.finish is None:
            if not text:
                return []
            return [self._chunk(self._choice(sequence.index, self._delta(text), logprobs), usage)]
        events: list[bytes] = []
        final = self._delta(text) if text else b"{}"
        if text and self._tool is not None:
            events.append(self._chunk(self._choice(sequence.index, final, logprobs), usage))
            final = b"{}"
        events.append(self._last_chunk(sequence.index, final, logprobs, last, usage))
        return events

    def closing(self, sequences: list[Sequence]) -> list[bytes]:
        """Usage, where it was asked for, and the end mark."""
        if not self._streaming.include_usage:
            return [DONE]
        usage = usage_of(sequences, self._n, self._block_size)
        counts = (usage.prompt, usage.total, usage.completion, usage.cached, usage.created)
        return [self._chunk(_FINAL_USAGE % counts, _FINGERPRINT), DONE]

    def _last_chunk(
        self, index: int, delta: bytes, logprobs: bytes, last: Token, usage: bytes
    ) -> bytes:
        self._unfinished -= 1
        end = b'%b,"stop_reason":%b' % (self._reason(last), encode(last.stop_reason))
        choice = self._choice(index, delta, logprobs, end)
        closes = not self._unfinished and not self._streaming.include_usage
        return self._chunk(choice, usage + (_FINGERPRINT if closes else b""))

    def _reason(self, last: Token) -> bytes:
        called = last.finish is FinishReason.STOP and self._tool and not self._tool.named
        return b'"tool_calls"' if called else encode(last.finish)

    def _delta(self, text: str) -> bytes:
        if self._tool is not None:
            return _TOOL_DELTA % encode(text)
        return b'{"content":%b}' % encode(text)

    def _usage(self, completion: int) -> bytes:
        if not self._streaming.continuous_usage:
            return b""
        prompt = self._prompt_tokens
        return _USAGE % (prompt, prompt + completion, completion)

    def _choice(self, index: int, delta: bytes, logprobs: bytes, end: bytes = b"null") -> bytes:
        return b'[{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b,"token_ids":null}]' % (
            index,
            delta,
            logprobs,
            end,
        )

    def _chunk(self, choices: bytes, tail: bytes = b"") -> bytes:
        return self._head + choices + tail + b"}\n\n"
