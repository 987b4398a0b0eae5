"""An engine that keeps exact books: what it has reported of every request, to the token.

It is raw asyncio in the caller's loop. A body's `plan` says how a request goes; everything else is
as vLLM does it: `max_tokens`, `n`, `stream_options`, `/tokenize`, usage on the last event or on
each. An event carries one to three tokens, so that counting events would not do.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Self

from support.wire import DONE, LAST_CHUNK, answer, chunk, stream_head, take_request

CONTEXT = 1024
COMPLETIONS_DEFAULT = 16
TEMPLATE_TOKENS = 7


@dataclass(slots=True)
class Entry:
    """One request in the books: the tokens that were told to the router, and how it ended."""

    prompt: int = 0
    completion: list[int] = field(default_factory=list)
    ending: str = "running"

    @property
    def reported(self) -> int:
        return self.prompt + sum(self.completion)


def count_prompt(body: dict[str, Any]) -> int:
    """Tokens of a prompt: a word each, and the template's."""
    texts = [m["content"] for m in body["messages"]] if "messages" in body else [body["prompt"]]
    return TEMPLATE_TOKENS + sum(len(text.split()) for text in texts)


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


class BookkeepingEngine:
    """Serves the model `tiny`; start and end it as an async context.

    Attributes:
        books: one entry for each request that was let in.
        tokenized: how often `/tokenize` was asked.
    """

    def __init__(self, seed: int = 0) -> None:
        self.books: list[Entry] = []
        self.tokenized = 0
        self.port = 0
        self.random = random.Random(seed)
        self._told_at: list[float] = [0.0]
        self._told: list[int] = [0]
        self._reached: dict[str, asyncio.Event] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def reported(self) -> int:
        """Tokens told of in all answers."""
        return sum(entry.reported for entry in self.books)

    def note(self, tokens: int) -> None:
        """Remember when so many more tokens were told."""
        self._told_at.append(time.monotonic())
        self._told.append(self._told[-1] + tokens)

    def told_by(self, moment: float) -> int:
        """Tokens told of until a moment of the monotonic clock."""
        return self._told[bisect_right(self._told_at, moment) - 1]

    def reached(self, name: str) -> asyncio.Event:
        """Set once the request of this name stands still until its client has gone."""
        return self._reached.setdefault(name, asyncio.Event())

    def small_answer(self, path: str, body: dict[str, Any]) -> bytes | None:
        """The answer of a path that generates nothing; None for the others."""
        if path == "/v1/models":
            row = {"id": "tiny", "object": "model", "created": 1, "max_model_len": CONTEXT}
            return answer({"object": "list", "data": [row]})
        if path == "/tokenize":
            self.tokenized += 1
            return answer({"count": count_prompt(body), "max_model_len": CONTEXT, "tokens": []})
        return answer(b"") if path == "/health" else None


class _Connection(asyncio.Protocol):
    """One connection of the router's: its requests, one after the other."""

    def __init__(self, engine: BookkeepingEngine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        raw = take_request(self._buffer)
        if raw is not None:
            self._task = asyncio.get_running_loop().create_task(self._serve(raw))

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()

    async def _serve(self, raw: bytes) -> None:
        path = raw.split(b" ", 2)[1].decode()
        content = raw.partition(b"\r\n\r\n")[2]
        body = json.loads(content) if content else {}
        small = self._engine.small_answer(path, body)
        if small is not None:
            self._transport.write(small)
            return
        plan = body["plan"]
        await asyncio.sleep(plan.get("think_s", 0))
        if "fail" in plan:
            self._fail(plan["fail"])
        elif not self._gone.is_set():
            await _Generation(self._engine, self._transport, self._gone, path, body).run()

    def _fail(self, how: int | str) -> None:
        if how == "reset":
            self._transport.abort()
        else:
            error = {"message": "planned", "type": "planned", "param": None, "code": how}
            self._transport.write(answer({"error": error}, int(how)))


class _Generation:
    """One answer, as far as its plan lets it go."""

    def __init__(
        self,
        engine: BookkeepingEngine,
        transport: asyncio.Transport,
        gone: asyncio.Event,
        path: str,
        body: dict[str, Any],
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._gone = gone
        self._is_chat = path.endswith("chat/completions")
        self._plan = body["plan"]
        self._streams = bool(body.get("stream"))
        options = body.get("stream_options") or {}
        self._tells_last = bool(options.get("include_usage"))
        self._tells_each = self._tells_last and bool(options.get("continuous_usage_stats"))
        self._choices = body.get("n") or 1
        self._prompt = count_prompt(body)
        default = CONTEXT if self._is_chat else COMPLETIONS_DEFAULT
        limit = body.get("max_completion_tokens") or body.get("max_tokens", default)
        self._length = min(self._plan["length"], limit, CONTEXT - self._prompt)
        self._entry = Entry(completion=[0] * self._choices)
        engine.books.append(self._entry)

    async def run(self) -> None:
        if self._streams:
            await self._stream()
        elif self._plan.get("abort"):
            await self._stand_still()
        else:
            self._tell(self._prompt, [self._length] * self._choices)
            self._transport.write(answer(self._unary()))
            self._entry.ending = "whole"

    async def _stand_still(self) -> None:
        self._engine.reached(self._plan["name"]).set()
        await self._gone.wait()
        self._entry.ending = "aborted"

    def _tell(self, prompt: int, completion: list[int]) -> None:
        self._engine.note(prompt + sum(completion) - self._entry.reported)
        self._entry.prompt = prompt
        self._entry.completion = completion

    async def _stream(self) -> None:
        self._transport.write(stream_head())
        done = [0] * self._choices
        sent = 0
        while any(tokens < self._length for tokens in done):
            choice = min(range(self._choices), key=done.__getitem__)
            done[choice] += min(self._engine.random.randint(1, 3), self._length - done[choice])
            if self._tells_each:
                self._tell(self._prompt, list(done))
            self._transport.write(chunk(self._event(choice, done[choice])))
            sent += 1
            if self._plan.get("abort") == sent:
                await self._stand_still()
                return
            await asyncio.sleep(self._plan.get("pace_s", 0))
            if self._gone.is_set():
                self._entry.ending = "cut"
                return
        self._end(done)

    def _end(self, done: list[int]) -> None:
        if self._tells_last:
            self._tell(self._prompt, done)
            total = {"choices": [], "usage": usage(self._prompt, sum(done))}
            self._transport.write(chunk(_compact(total)))
        self._transport.write(chunk(DONE) + LAST_CHUNK)
        self._entry.ending = "whole"

    def _event(self, choice: int, tokens: int) -> bytes:
        said = {"delta": {"content": "word "}} if self._is_chat else {"text": "word "}
        content: dict[str, Any] = {"id": "1", "choices": [{"index": choice, **said}]}
        if self._tells_each:
            content["usage"] = usage(self._prompt, tokens)
        return _compact(content)

    def _unary(self) -> bytes:
        said = {"message": {"content": "word"}} if self._is_chat else {"text": "word"}
        choices = [{"index": index, **said} for index in range(self._choices)]
        told = usage(self._prompt, self._length * self._choices)
        return _json({"id": "1", "choices": choices, "usage": told})


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _compact(content: Any) -> bytes:
    return b"data: " + _json(content) + b"\n\n"
