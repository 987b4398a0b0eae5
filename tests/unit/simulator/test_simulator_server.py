"""A simulated engine on its port: what clients of every kind get to see of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import sys
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest

from router.simulator import SimulatorSettings, serve

MESSAGES = [{"role": "user", "content": "Hello!"}]
ENDLESS = {"messages": MESSAGES, "ignore_eos": True, "stream": True}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
            "required": ["city"],
        },
    },
}


@asynccontextmanager
async def started(**settings):
    """An engine and a client session for it."""
    fast = {"decode_tokens_per_s": 1000.0, **settings}
    async with (
        serve(SimulatorSettings(**fast)) as engine,
        aiohttp.ClientSession(engine.url, timeout=aiohttp.ClientTimeout(20)) as session,
    ):
        yield engine, session


async def metric(session, name):
    async with session.get("/metrics") as answer:
        text = await answer.text()
    return sum(float(v) for v in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))


async def until(condition):
    """Wait until a condition holds; the test's timeout is its bound."""
    while not condition():
        await asyncio.sleep(0.002)


async def test_a_queued_stream_has_its_head_at_once_and_no_body():
    async with (
        started(max_num_seqs=1, decode_tokens_per_s=50.0) as (engine, session),
        session.post("/v1/chat/completions", json=ENDLESS) as first,
    ):
        await first.content.readany()
        async with session.post("/v1/chat/completions", json=ENDLESS) as second:
            assert second.status == 200
            assert engine.engine.num_waiting == 1
            assert await metric(session, "vllm:num_requests_waiting") == 1
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second.content.readany(), 0.05)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_its_generation(stream):
    async with started() as (engine, session):
        body = json.dumps({**ENDLESS, "stream": stream}).encode()
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        )
        _, writer = await asyncio.open_connection(engine.host, engine.port)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: engine.engine.counters.generation_tokens > 3)
        writer.close()
        await until(lambda: engine.engine.num_running == 0)
        made = engine.engine.counters.generation_tokens
        assert made < SimulatorSettings().max_model_len / 2
        assert await metric(session, "vllm:generation_tokens_total") == made
        assert await metric(session, "vllm:request_success_total") == 0


async def test_tokens_counted_are_tokens_sent_in_every_way_of_asking():
    usage = {"stream_options": {"include_usage": True}}
    bodies = [
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 11, "n": 3}),
        ("/v1/chat/completions", {**ENDLESS, **usage, "max_tokens": 7}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stop": ["e"]}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": [1, 2, 3], **usage, "stream": True, "n": 2}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
    ]
    async with started() as (_, session):
        counted = 0
        for path, body in bodies:
            async with session.post(path, json=body) as answer:
                text = await answer.text()
            counted += int(re.findall(r'"(?:completion|output)_tokens":(\d+)', text)[-1])
        assert await metric(session, "vllm:generation_tokens_total") == counted
        assert await metric(session, "vllm:num_requests_running") == 0


async def test_a_slow_reader_gets_fewer_events_and_every_word():
    async with started(decode_tokens_per_s=1e6, max_model_len=40_000) as (engine, session):
        body = {"prompt": "x", "max_tokens": 30_000, "ignore_eos": True, "seed": 1}
        async with session.post("/v1/completions", json=body) as answer:
            whole = (await answer.json())["choices"][0]["text"]
        async with session.post("/v1/completions", json={**body, "stream": True}) as answer:
            await until(lambda: engine.engine.num_running == 0 and engine.engine.num_waiting == 0)
            events = (await answer.text()).split("\n\n")[:-2]
    assert "".join(json.loads(event[6:])["choices"][0]["text"] for event in events) == whole
    assert len(events) < 30_000


async def test_asleep_requests_hang_health_is_200_and_they_go_on_after():
    async with started() as (engine, session):
        assert (await session.post("/sleep?level=2")).status == 200
        call = asyncio.create_task(
            session.post("/v1/completions", json={"prompt": "x", "max_tokens": 2})
        )
        await until(lambda: engine.engine.num_waiting == 1)
        assert (await session.get("/health")).status == 200
        async with session.get("/metrics") as answer:
            assert 'sleep_state="discard_all"} 1.0' in await answer.text()
        assert not call.done()
        await session.post("/wake_up")
        assert (await call).status == 200


async def test_a_stream_in_flight_ends_as_aborted_when_the_engine_falls_asleep():
    async with (
        started() as (_, session),
        session.post("/v1/chat/completions", json=ENDLESS) as answer,
    ):
        await answer.content.readany()
        await session.post("/sleep")
        text = await answer.text()
    assert '"delta":{},"logprobs":null,"finish_reason":"abort"' in text
    assert text.endswith("data: [DONE]\n\n")


async def test_over_the_queue_limit_the_answer_is_503_also_for_streams():
    async with (
        started(max_num_queued_reqs=1) as (_, session),
        session.post("/v1/chat/completions", json=ENDLESS) as first,
        session.post("/v1/chat/completions", json=ENDLESS) as second,
    ):
        assert (first.status, second.status) == (200, 503)
        assert (await second.json())["error"]["type"] == "Service Unavailable"
        assert "Retry-After" not in second.headers


async def test_without_dev_mode_there_is_no_sleep():
    async with started(dev_mode=False) as (_, session):
        assert (await session.post("/sleep")).status == 404
        assert (await session.get("/is_sleeping")).status == 404


async def test_the_request_id_becomes_the_body_id():
    async with started() as (_, session):
        headers = {"X-Request-Id": "abc-1"}
        body = {"prompt": "x", "max_tokens": 1}
        async with session.post("/v1/completions", json=body, headers=headers) as answer:
            assert (await answer.json())["id"] == "cmpl-abc-1"
            assert "x-request-id" not in answer.headers


async def test_the_prefix_cache_shows_in_usage_and_metrics():
    async with started() as (_, session):
        body = {"prompt": "word " * 100, "max_tokens": 1}
        cached = []
        for _ in range(2):
            async with session.post("/v1/completions", json=body) as answer:
                usage = (await answer.json())["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0, 112]
        assert await metric(session, "vllm:prefix_cache_hits_total") == 112
        assert await metric(session, "vllm:prefix_cache_queries_total") == 250


async def test_idle_connections_are_closed():
    async with started(keep_alive_s=0.05) as (engine, _):
        reader, writer = await asyncio.open_connection(engine.host, engine.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_connections_are_refused_until_the_engine_is_ready():
    settings = SimulatorSettings(startup_delay_s=0.1)
    async with serve(settings) as engine, aiohttp.ClientSession(engine.url) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/health")
        await engine.ready.wait()
        assert (await session.get("/health")).status == 200


async def test_http_1_0_gets_a_plain_body_that_ends_with_the_connection():
    async with started() as (engine, _):
        reader, writer = await asyncio.open_connection(engine.host, engine.port)
        body = b'{"prompt":"x","max_tokens":2,"stream":true}'
        head = b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"data: {")
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_an_upload_is_transcribed():
    async with started() as (_, session):
        form = aiohttp.FormData({"model": "simulated"})
        form.add_field("file", io.BytesIO(b"\1" * 64_000), filename="a.wav")
        async with session.post("/v1/audio/transcriptions", data=form) as answer:
            assert answer.status == 200
            body = await answer.json()
    assert body["text"]
    assert body["usage"] == {"type": "duration", "seconds": 2}


async def test_the_openai_client_works_with_it():
    settings = SimulatorSettings(models=("tiny",), api_key="k", decode_tokens_per_s=1000)
    async with (
        serve(settings) as engine,
        openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="k", max_retries=0) as client,
    ):
        assert [card.id async for card in client.models.list()] == ["tiny"]
        await chat_with(client)
        await call_a_tool(client)
        vectors = await client.embeddings.create(model="tiny", input=["a", "b"])
        assert [len(row.embedding) for row in vectors.data] == [64, 64]
        response = await client.responses.create(model="tiny", input="Hello")
        assert response.output_text
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="nope", prompt="x")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="no").models.list()


async def chat_with(client):
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 20


async def call_a_tool(client):
    asked = {"model": "tiny", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required"}
    whole = await client.chat.completions.create(**asked)
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Paris"}')
    assert whole.choices[0].finish_reason == "tool_calls"
    async with client.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls
    assert streamed.function.arguments == call.function.arguments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_prints_its_port_and_ends_well_on_a_signal(number):
    code = "import typer; from router.cli.simulate import simulate; typer.run(simulate)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "--port", "0", "--model", "tiny"),
        stdout=asyncio.subprocess.PIPE,
    )
    line = (await process.stdout.readline()).decode()
    url = re.search(r"http://127\.0\.0\.1:\d+", line).group()
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/v1/chat/completions", json=ENDLESS) as answer,
    ):
        await answer.content.readany()
        process.send_signal(number)
        assert await process.wait() == 0


NASTY = [None, 0, -1, 10**400, 1.5, True, "", "x", "\ud800", [], [1], [[]], [None], {}, {"a": 1}]
FIELDS = {
    "/v1/chat/completions": (
        {"messages": MESSAGES, "max_tokens": 1},
        *("messages", "max_tokens", "n", "stop", "tools", "tool_choice", "response_format"),
        *("stream", "stream_options", "logprobs", "top_logprobs", "seed", "temperature", "model"),
    ),
    "/v1/completions": (
        {"prompt": "x", "max_tokens": 1},
        *("prompt", "logprobs", "echo", "suffix", "min_tokens", "top_p", "ignore_eos"),
    ),
    "/v1/messages": (
        {"messages": MESSAGES, "max_tokens": 1},
        *("messages", "system", "tools", "tool_choice", "stop_sequences"),
    ),
    "/v1/responses": (
        {"input": "x", "max_output_tokens": 1},
        *("input", "instructions", "metadata", "previous_response_id", "background"),
    ),
    "/v1/embeddings": ({"input": "x"}, "input", "encoding_format", "dimensions", "messages"),
    "/v1/score": ({"text_1": "x", "text_2": "y"}, "text_1", "text_2"),
    "/v1/rerank": ({"query": "x", "documents": ["y"]}, "query", "documents", "top_n"),
    "/tokenize": ({"prompt": "x"}, "prompt", "messages", "return_token_strs"),
    "/detokenize": ({"tokens": [1]}, "tokens"),
}


@pytest.mark.parametrize("path", FIELDS)
async def test_no_value_of_any_field_is_an_internal_error(path):
    body, *names = FIELDS[path]
    nested = [[{"role": v, "content": v}] for v in NASTY]
    nested += [[{"type": "function", "function": {"name": v, "parameters": v}}] for v in NASTY]
    nested += [{"type": "json_schema", "json_schema": {"schema": {"required": v}}} for v in NASTY]
    async with started() as (engine, session):
        for name in names:
            for value in (*NASTY, *nested):
                sent = json.dumps({**body, name: value})
                headers = {"Content-Type": "application/json"}
                async with session.post(path, data=sent, headers=headers) as answer:
                    await answer.read()
                    assert answer.status < 500, sent
        assert (engine.engine.num_running, engine.engine.num_waiting) == (0, 0)
