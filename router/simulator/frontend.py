"""Between the paths and the engine: names, prompts, and a request's sequences from start to end."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator

import msgspec
from aiohttp import web

from router.simulator.body import Body, string
from router.simulator.engine import Engine, EngineBusy, Sequence
from router.simulator.errors import ApiError, bad_value, engine_busy, unknown_model
from router.simulator.outputs import Collector, Events, EventStream
from router.simulator.pacer import Pacer
from router.simulator.sampling import Sampling, output_limit
from router.simulator.settings import SimulatorSettings
from router.simulator.text import Script, Token
from router.simulator.tokens import Prompt

#: What is to be run: a prompt, and its answer (None where the prompt alone matters).
Job = tuple[Prompt, Script | None]

#: Characters a token can stand for at most; longer texts are refused before they are tokenized.
_MAX_CHARS_PER_TOKEN = 32


class Frontend:
    """One engine's owner on the HTTP side."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.engine = Engine(settings)
        self.pacer = Pacer(self.engine, settings.time_scale)
        self.started_at = int(time.time())
        self.requests_in_flight = 0

    def model(self, body: Body) -> str:
        """The model that a body names; the first served one where it names none.

        Raises:
            ApiError: it is not served here, or is no string.
        """
        name = string(body, "model") or self.settings.models[0]
        if name not in self.settings.models:
            raise unknown_model(name, self.settings.models)
        return name

    def prompt(self, text: str) -> Prompt:
        """The prompt that a text makes.

        Raises:
            ApiError: far too long, or not Unicode text.
        """
        limit = self.settings.max_model_len
        if len(text) > limit * _MAX_CHARS_PER_TOKEN:
            problem = (
                f"This model's maximum context length is {limit} tokens. However, your prompt"
                f" contains {len(text)} characters (more than {limit * _MAX_CHARS_PER_TOKEN}"
                f" characters, which is the upper bound for {limit} input tokens)."
                " Please reduce the length of the input prompt."
            )
            raise bad_value(problem, "input_text", len(text))
        return Prompt.from_text(utf8(text), self.settings.block_size)

    def jobs(
        self, prompts: list[Prompt], sampling: Sampling, default_limit: int | None = None
    ) -> list[Job]:
        """`sampling.n` answers to each prompt, in order.

        Raises:
            ApiError: a prompt does not fit.
        """
        jobs: list[Job] = []
        for prompt in prompts:
            requested = sampling.max_tokens or default_limit
            limit = output_limit(prompt, requested, self.settings.max_model_len)
            jobs += [
                (prompt, sampling.script(prompt, choice, limit, self.settings))
                for choice in range(sampling.n)
            ]
        return jobs

    async def collect(
        self, request: web.Request, jobs: list[Job]
    ) -> tuple[list[Sequence], list[list[Token]]]:
        """Run the jobs to their end; the sequences and the tokens of each."""
        output = Collector(request.transport, len(jobs))
        sequences = [Sequence(p, script, output, i) for i, (p, script) in enumerate(jobs)]
        with self._running(sequences):
            await output.done
        return sequences, output.tokens

    async def stream(
        self, request: web.Request, jobs: list[Job], events: Events
    ) -> web.StreamResponse:
        """Run the jobs and send each token as it is made. The head goes out at once."""
        output = EventStream(request.transport, events, len(jobs))
        sequences = [Sequence(p, script, output, i) for i, (p, script) in enumerate(jobs)]
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        with self._running(sequences):
            await response.prepare(request)
            output.start(response)
            await output.done
            await output.finish(sequences)
        return response

    @contextlib.contextmanager
    def _running(self, sequences: list[Sequence]) -> Iterator[None]:
        try:
            self.engine.submit(sequences)
        except EngineBusy:
            raise engine_busy() from None
        self.requests_in_flight += 1
        self.pacer.wake()
        try:
            yield
        finally:
            self.engine.abort(sequences)
            self.requests_in_flight -= 1


FRONTEND = web.AppKey("FRONTEND", Frontend)


def utf8(text: str) -> bytes:
    """The text's bytes.

    Raises:
        ApiError: it holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        message = (
            "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"
        )
        raise ApiError(message) from None


def json_answer(value: object, status: int = 200) -> web.Response:
    """An answer of compact JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def new_id() -> str:
    """Sixteen hexadecimal digits, as vLLM's ids have."""
    return uuid.uuid4().hex[:16]


def body_id(request: web.Request, prefix: str) -> str:
    """The id of an answer: the client's `X-Request-Id` as it is, else a new one."""
    given = request.headers.get("X-Request-Id")
    if given is None:
        return prefix + new_id()
    return prefix + given.encode("utf-8", "replace").decode()
