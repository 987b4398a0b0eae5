"""What a client has an engine echo is never taken for the engine's own usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.quota.engine_script import compact, compact_answer, stream_of, usage
from e2e.quota.organization import ask, organization, until_settled, used
from support.daemon import service
from support.http import Client
from support.upstream import Send, Step
from support.wire import Request

RESPONSES = "/v1/responses"
OTHER_KEY = "sk-other-0123456789abcdefghijklmnopqrstuv"
ABSURD = 10**14
TOLD = {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34}
PROPERTIES: dict[str, Any] = {
    "counts": {"input_tokens": ABSURD, "output_tokens": ABSURD},
    "too-few": {"input_tokens": 1, "output_tokens": 0},
    "braces": {"description": "{" * 40, "pad": "y" * 2000},
}


def body_with(declared: Any, *, stream: bool) -> dict[str, Any]:
    """A request with a tool that has a parameter `usage`."""
    parameters = {"type": "object", "properties": {"usage": declared}}
    tools = [{"type": "function", "name": "f", "parameters": parameters}]
    fields = {"model": "tiny", "input": "x", "max_output_tokens": 4, "tools": tools}
    return {**fields, "stream": True} if stream else fields


def echoing(request: Request) -> list[Step]:
    """An engine that writes the tools it was sent into its answer, as vLLM does."""
    asked = {"id": "resp_1", "tools": request.json.get("tools"), "usage": None}
    done = {**asked, "usage": TOLD, "user": None, "output_messages": [asked["tools"]]}
    if not request.json.get("stream"):
        return [Send(compact_answer(done))]
    return stream_of(
        *(
            b"event: " + kind + b"\ndata: " + compact({"response": said}) + b"\n\n"
            for kind, said in ((b"response.created", asked), (b"response.completed", done))
        )
    )


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("declared", PROPERTIES.values(), ids=PROPERTIES)
def test_the_schema_of_a_tool_is_no_usage(start_metered, declared, stream):
    router, _ = start_metered(echoing, daily_tokens=1_000_000)
    assert ask(router, body_with(declared, stream=stream), RESPONSES).status == 200
    until_settled(router)
    assert used(router) == 34


def absurd(_: Request) -> list[Step]:
    """An engine that counts wrongly."""
    return [Send(compact_answer({"data": [], "usage": usage(ABSURD, 0)}))]


@pytest.mark.parametrize("script", [echoing, absurd], ids=["echoed", "counted"])
def test_what_one_organization_was_told_does_not_shut_out_another(
    start_daemon, start_upstream, script: Callable[[Request], list[Step]]
):
    upstream = start_upstream(script)
    rows = [organization(daily_tokens=10**7), organization("other", OTHER_KEY, daily_tokens=10**7)]
    router = start_daemon(
        {"organizations": rows, "services": [service("engine", upstream.url, "tiny")]}
    )
    asked = body_with(PROPERTIES["counts"], stream=True) if script is echoing else {"input": "x"}
    path = RESPONSES if script is echoing else "/v1/embeddings"
    assert ask(router, {"model": "tiny", **asked}, path).status == 200
    until_settled(router)
    assert used(router) < 1000
    with Client(router.port) as client:
        headers = (("authorization", f"Bearer {OTHER_KEY}"),)
        body = {"model": "tiny", "input": "x"}
        assert client.request("POST", "/v1/embeddings", body, headers).read().status == 200
