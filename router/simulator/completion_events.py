"""The events of a completion stream, put together from bytes."""

from __future__ import annotations

import time

from router.simulator.engine import Sequence
from router.simulator.logprobs import completion_logprobs
from router.simulator.sampling import Sampling, Streaming
from router.simulator.sse import DONE, FINGERPRINT, encode
from router.simulator.text import Token
from router.simulator.tokens import Prompt
from router.simulator.usage import usage_of

_CHOICE = (
    b'[{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b,"stop_reason":%b,'
    b'"prompt_token_ids":null,"token_ids":null}]'
)
_USAGE = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}'
_FINAL_USAGE = (
    b'[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d}}'
)
_FINGERPRINT = b',"system_fingerprint":"%b"' % FINGERPRINT.encode()


class CompletionEvents:
    """Events of one `text_completion` stream."""

    def __init__(
        self,
        *,
        answer_id: str,
        model: str,
        prompts: list[Prompt],
        echoes: list[str],
        sampling: Sampling,
        streaming: Streaming,
        block_size: int,
    ) -> None:
        self._head = (
            b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":'
            % (encode(answer_id), int(time.time()), encode(model))
        )
        self._prompt_tokens = [p.tokens for p in prompts for _ in range(sampling.n)]
        self._echoes = echoes
        self._offsets = [len(echo) for echo in echoes]
        self._n = sampling.n
        self._alternatives = sampling.logprobs
        self._streaming = streaming
        self._block_size = block_size
        self._unfinished = len(echoes)

    def opening(self) -> list[bytes]:
        """Nothing: a completion begins with its first token."""
        return []

    def delta(self, sequence: Sequence, tokens: list[Token]) -> list[bytes]:
        """One chunk of text; the first one of an echoed prompt leads with it."""
        index, last = sequence.index, tokens[-1]
        text = tokens[0].text if len(tokens) == 1 else "".join(token.text for token in tokens)
        echo, self._echoes[index] = self._echoes[index], ""
        if not text and not echo and last.finish is None:
            return []
        choice = _CHOICE % (
            index,
            encode(echo + text),
            self._logprobs(index, tokens),
            encode(last.finish),
            encode(last.stop_reason),
        )
        self._offsets[index] += len(text)
        return [self._head + choice + self._tail(sequence, last) + b"}\n\n"]

    def closing(self, sequences: list[Sequence]) -> list[bytes]:
        """Usage, where it was asked for, and the end mark."""
        if not self._streaming.include_usage:
            return [DONE]
        usage = usage_of(sequences, self._n, self._block_size)
        counts = _FINAL_USAGE % (usage.prompt, usage.total, usage.completion, usage.cached)
        return [self._head + counts + _FINGERPRINT + b"}\n\n", DONE]

    def _logprobs(self, index: int, tokens: list[Token]) -> bytes:
        if self._alternatives is None:
            return b"null"
        return encode(completion_logprobs(tokens, self._alternatives, self._offsets[index]))

    def _tail(self, sequence: Sequence, last: Token) -> bytes:
        tail = b""
        if self._streaming.continuous_usage:
            prompt, made = self._prompt_tokens[sequence.index], sequence.generated
            tail = _USAGE % (prompt, prompt + made, made)
        if last.finish is not None:
            self._unfinished -= 1
            if not self._unfinished and not self._streaming.include_usage:
                tail += _FINGERPRINT
        return tail
