"""The official Python clients work through the router: a base_url and a key, nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest

HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def client(fleet) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=fleet.base_url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


def test_a_chat_is_answered(fleet, client):
    answer = client.chat.completions.create(model=fleet.model, messages=HELLO, max_tokens=8)
    assert answer.object == "chat.completion"
    assert answer.model == fleet.model
    assert answer.choices[0].finish_reason in {"length", "stop"}
    assert 1 <= answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_says_who_served_it_and_keeps_the_request_id(fleet, client):
    raw = client.chat.completions.with_raw_response.create(
        model=fleet.model, messages=HELLO, max_tokens=4, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-router-service"] in {"engine-0", "engine-1"}
    assert raw.parse().choices


def test_both_engines_take_their_share(fleet, client):
    served = {
        client.chat.completions.with_raw_response.create(
            model=fleet.model, messages=HELLO, max_tokens=1
        ).headers["x-router-service"]
        for _ in range(40)
    }
    assert served == {"engine-0", "engine-1"}


@pytest.mark.parametrize("name", ["alias", "model"])
def test_a_stream_comes_in_pieces_and_ends(fleet, client, name):
    stream = client.chat.completions.create(
        model=getattr(fleet, name), messages=HELLO, max_tokens=12, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    chunks = list(stream)
    assert len(chunks) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.choices for chunk in chunks), "a usage chunk that nobody asked for"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_tells_its_usage_when_asked(fleet, client):
    stream = client.chat.completions.create(
        model=fleet.model, messages=HELLO, max_tokens=6, stream=True,
        stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
    )  # fmt: skip
    *pieces, last = list(stream)
    assert last.choices == []
    assert last.usage.completion_tokens == 6
    assert last.usage.prompt_tokens > 0
    assert all(piece.usage is None for piece in pieces)


def test_a_stream_that_is_left_early_stops_the_engine(fleet, client):
    stream = client.chat.completions.create(
        model=fleet.model, messages=HELLO, max_tokens=400, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    next(iter(stream))
    stream.close()
    fleet.router.until_idle(5)


def test_a_tool_is_called(fleet, client):
    answer = client.chat.completions.create(
        model=fleet.model, messages=HELLO, max_tokens=200, temperature=0, tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )  # fmt: skip
    [call] = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert call.function.arguments


def test_a_streamed_tool_call_is_put_together(fleet, client):
    stream = client.chat.completions.create(
        model=fleet.model, messages=HELLO, max_tokens=200, temperature=0, tools=[TOOL], stream=True,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )  # fmt: skip
    deltas = [c.choices[0].delta.tool_calls for c in stream if c.choices]
    calls = [call for part in deltas for call in part or []]
    assert "get_weather" in {call.function.name for call in calls if call.function}
    assert "".join(call.function.arguments or "" for call in calls if call.function)


def test_fields_of_vllm_alone_pass(fleet, client):
    answer = client.chat.completions.create(
        model=fleet.model, messages=HELLO, max_tokens=5, n=2,
        extra_body={"top_k": 5, "repetition_penalty": 1.1, "ignore_eos": True,
                    "chat_template_kwargs": {"x": 1}},
    )  # fmt: skip
    assert len(answer.choices) == 2
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_completions_answer_and_stream(fleet, client):
    answer = client.completions.create(model=fleet.model, prompt="Once", max_tokens=5)
    assert answer.object == "text_completion"
    stream = client.completions.create(model=fleet.model, prompt="Once", max_tokens=5, stream=True)
    assert list(stream)[-1].choices[0].finish_reason in {"length", "stop"}


def test_the_models_are_listed_and_told_one_by_one(fleet, client):
    names = [model.id for model in client.models.list()]
    assert sorted(names) == sorted([fleet.model, fleet.alias])
    for name in names:
        assert client.models.retrieve(name).id == name


def test_embeddings_are_answered(fleet, client):
    if not fleet.embeds:
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model=fleet.model, input="Hi")
        return
    answer = client.embeddings.create(model=fleet.model, input=["one", "two"])
    assert [row.index for row in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0


def test_a_responses_call_is_answered_and_streamed(fleet, client):
    answer = client.responses.create(model=fleet.model, input="Hi", max_output_tokens=8)
    assert answer.object == "response"
    events = [
        event.type
        for event in client.responses.create(
            model=fleet.model, input="Hi", max_output_tokens=8, stream=True
        )
    ]
    assert events[0] == "response.created"
    assert events[-1] in {"response.completed", "response.incomplete"}


# -- typed errors ----------------------------------------------------------------------------------


def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no/such", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_an_engines_own_refusal_is_a_bad_request_error(fleet, client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=fleet.model, messages=HELLO, max_tokens=fleet.context * 10
        )
    assert caught.value.response.headers["x-router-service"].startswith("engine-")


def test_a_body_without_a_model_is_a_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="", messages=HELLO)
    assert caught.value.code == "invalid_model"


def test_a_model_that_is_not_there_is_not_found_by_name(client):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")


async def test_the_async_client_streams_many_at_once(fleet):
    async with openai.AsyncOpenAI(base_url=fleet.base_url, api_key="any", timeout=60) as made:
        streams = [
            await made.chat.completions.create(
                model=fleet.model, messages=HELLO, max_tokens=8, stream=True,
                extra_body={"ignore_eos": True},
            )
            for _ in range(8)
        ]  # fmt: skip
        for stream in streams:
            assert [c async for c in stream][-1].choices[0].finish_reason == "length"


# -- Anthropic's client ----------------------------------------------------------------------------


@pytest.fixture
def claude(fleet) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=fleet.router.url, api_key="any", max_retries=0, timeout=60
    ) as made:
        yield made


def test_a_message_is_answered(fleet, claude):
    answer = claude.messages.create(model=fleet.model, max_tokens=8, messages=HELLO)
    assert answer.type == "message"
    assert answer.role == "assistant"
    assert answer.stop_reason in {"max_tokens", "end_turn"}


def test_a_message_streams(fleet, claude):
    with claude.messages.stream(model=fleet.model, max_tokens=8, messages=HELLO) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_tokens_are_counted(fleet, claude):
    assert claude.messages.count_tokens(model=fleet.model, messages=HELLO).input_tokens > 0


def test_an_unknown_model_is_a_not_found_error_of_anthropics_form(claude):
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="no/such", max_tokens=8, messages=HELLO)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "not_found_error"
