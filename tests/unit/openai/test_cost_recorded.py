"""Every recorded request of a real vLLM did cost no more than it would have been taken for."""

from __future__ import annotations

import pytest

from router.model import Usage
from router.openai.body import read_fields
from router.openai.cost import FRAME_TOKENS, most
from router.openai.paths import INFERENCE_PATHS
from router.openai.stream_taps import UsageTap
from router.openai.unary_tap import BodyTap
from support.recordings import Recording, load_all

CONTEXTS = (None, 512, 32_768)


def told(recording: Recording) -> Usage:
    tap = BodyTap() if recording.body.lstrip().startswith(b"{") else UsageTap()
    tap.feed(recording.body)
    return tap.usage


def costly() -> list[Recording]:
    """Requests that a client may send, and whose answers tell a usage."""
    return [
        each
        for each in load_all()
        if each.own_request() and each.kind == "answer" and each.status == 200 and told(each).total
    ]


COSTLY = costly()


def request(recording: Recording) -> tuple[str, bytes]:
    found = recording.own_request()
    assert found is not None
    return found


def test_there_are_recordings_of_every_kind_of_path():
    kinds = {INFERENCE_PATHS[request(each)[0]].kind for each in COSTLY}
    assert kinds >= {
        "chat", "completions", "embeddings", "messages", "responses", "rerank", "score", "pooling",
    }  # fmt: skip
    assert len(COSTLY) > 70


@pytest.mark.parametrize("recording", COSTLY, ids=lambda each: each.name)
def test_what_it_cost_is_within_what_it_was_taken_for(recording):
    """The sum is what is reserved; a context smaller than the engine's own proves nothing."""
    path, body = request(recording)
    usage = told(recording)
    fields = read_fields(body)
    for context in CONTEXTS:
        if context is None or usage.total <= context:
            row = INFERENCE_PATHS[path]
            cost = most(row, fields, body, context=context, frame=FRAME_TOKENS)
            assert usage.prompt_tokens <= cost.prompt_tokens
            assert usage.total <= cost.prompt_tokens + cost.completion_tokens
