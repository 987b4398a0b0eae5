"""The simulated engine beside recordings of a real vLLM 0.32.0: same request bytes, same form.

`data/recordings.json` holds the exact bytes of requests and answers. Errors have to be equal word
for word; answers have to have the same keys in the same order with the same types.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from router.simulator import RunningEngine, SimulatorSettings, serve

RECORDINGS = json.loads((Path(__file__).parent / "data" / "recordings.json").read_text())

#: Values that belong to the recorded model, not to the form of the answer.
MODEL_SPECIFIC = {"stop_reason", "ctx"}
#: Answers that do not depend on ids, times or text, errors apart.
EXACT = {
    *("meta_health", "meta_version", "meta_load", "meta_is_sleeping", "meta_is_paused"),
    *("dev_sleep_on_cpu", "dev_is_sleeping_after", "dev_wake_up", "dev_pause", "dev_is_paused"),
    *("dev_resume", "dev_reset_prefix_cache", "err_trailing_slash", "meta_models_slash"),
}
SETTINGS = SimulatorSettings(
    models=("tiny",),
    api_key="backend-secret",
    max_model_len=512,
    request_id_headers=True,
    decode_tokens_per_s=2000,
)
EMBEDDING_SETTINGS = SimulatorSettings(
    models=("tiny-embed",), api_key="backend-secret", max_model_len=512
)
#: Streams of which the recorded client got several tokens in one event.
MERGED = {"chat_logprobs_stream"}
#: What has to come before on the same engine.
PREPARATION = {
    "dev_is_sleeping_after": "dev_sleep_on_cpu",
    "dev_is_paused": "dev_pause",
}
STREAMS = [n for n in sorted(RECORDINGS) if "text/event-stream" in RECORDINGS[n]["response"]]


def succeeded(name: str) -> bool:
    """Whether the answer holds ids, times or text, so that its form alone can be compared."""
    return RECORDINGS[name]["response"].startswith("HTTP/1.1 200") and name not in EXACT


def split(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body, chunks put together."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(chunks(body))
    return int(first.split()[1]), headers, body


def chunks(body: bytes) -> list[bytes]:
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return found


def shape(value: object, key: str = "") -> object:
    """Keys in order and types; of a list, the shapes that occur in it."""
    if key in MODEL_SPECIFIC:
        return "any"
    if isinstance(value, dict):
        if key == "top_logprobs":
            return "object"
        return tuple((name, shape(item, name)) for name, item in value.items())
    if isinstance(value, list):
        return frozenset(shape(item, key) for item in value)
    if isinstance(value, bool) or value is None:
        return str(type(value))
    return "number" if isinstance(value, int | float) else "text"


def events(body: bytes) -> list[tuple[str, object]]:
    """Name and shape of every event."""
    shapes = []
    for event in body.decode().split("\n\n")[:-1]:
        name, _, data = event.rpartition("data: ")
        value = data if data == "[DONE]" else shape(json.loads(data))
        shapes.append((name, value))
    return shapes


async def exchange(engine: RunningEngine, name: str) -> bytes:
    """Send the recorded request as it was, read the answer until the server closes."""
    raw = RECORDINGS[name]["request"].encode("latin-1")
    if b"\r\nconnection: close" not in raw.lower():
        raw = raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(raw)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def both(name: str) -> tuple[tuple[int, dict[str, str], bytes], ...]:
    embedding = name.startswith("embed_server_")
    async with serve(EMBEDDING_SETTINGS if embedding else SETTINGS) as engine:
        if name in PREPARATION:
            await exchange(engine, PREPARATION[name])
        answer = await exchange(engine, name)
    return split(RECORDINGS[name]["response"].encode("latin-1")), split(answer)


@pytest.mark.parametrize("name", sorted(RECORDINGS))
async def test_status_and_headers_are_those_of_the_recording(name):
    (status, headers, _), (our_status, our_headers, _) = await both(name)
    assert our_status == status
    varying = {"date", "content-length", "x-request-id", "location", "connection"}
    expected = {k: v for k, v in headers.items() if k not in varying}
    assert ("x-request-id" in our_headers) == ("x-request-id" in headers)
    assert {k: v for k, v in our_headers.items() if k not in varying} == expected
    assert ("content-length" in our_headers) == ("content-length" in headers)
    assert ("location" in our_headers) == ("location" in headers)


@pytest.mark.parametrize("name", [n for n in sorted(RECORDINGS) if not succeeded(n)])
async def test_error_bodies_are_equal_to_the_recording(name):
    (_, _, body), (_, _, our_body) = await both(name)
    assert our_body.decode() == body.decode()


@pytest.mark.parametrize(
    "name",
    [n for n in sorted(RECORDINGS) if succeeded(n) and n not in STREAMS],
)
async def test_unary_answers_have_the_form_of_the_recording(name):
    (_, _, body), (_, _, our_body) = await both(name)
    if body:
        assert shape(json.loads(our_body)) == shape(json.loads(body))
    else:
        assert our_body == body


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_have_the_events_of_the_recording(name):
    (_, _, body), (_, _, our_body) = await both(name)
    expected, found = events(body), events(our_body)
    assert set(found) >= set(expected) if name in MERGED else set(found) == set(expected)
    assert found[0] == expected[0]
    assert found[-2:] == expected[-2:]


@pytest.mark.parametrize("name", ["chat_stream_usage", "comp_stream", "messages_stream"])
async def test_each_event_is_one_chunk(name):
    async with serve(SETTINGS) as engine:
        answer = await exchange(engine, name)
    body = answer.partition(b"\r\n\r\n")[2]
    assert all(chunk.count(b"\n\n") == 1 for chunk in chunks(body) if chunk)
