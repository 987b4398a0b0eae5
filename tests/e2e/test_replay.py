"""What a real vLLM once answered, played back byte for byte, reaches the client as it was.

The upstream sends the recorded bytes with the recorded cuts and pauses. A recording whose request
the router would refuse (another path, no model, not JSON) is played as the answer to a plain chat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.daemon import Daemon, service
from support.http import Client, Response, call, chat
from support.recordings import Recording, end_to_end, load_all, model_of
from support.upstream import Close, ScriptedUpstream, Stall

RECORDINGS = load_all()
ANSWERS = [r for r in RECORDINGS if r.kind == "answer"]
BROKEN = [r for r in RECORDINGS if r.kind != "answer"]
MODELS = sorted({"tiny"} | {model_of(r.own_request()[1]) for r in RECORDINGS if r.own_request()})
BROKEN_ENDINGS = {
    "silent": (Stall(), 504, "gateway_timeout"),
    "hung": (Stall(), 504, "gateway_timeout"),
    "no_head": (Close(), 502, "bad_gateway"),
    "bodiless": (Close(), 502, "bad_gateway"),
}


def named(recording: Recording) -> str:
    return recording.name


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    """One service that is never put aside, whatever it answers."""
    return start_module_daemon(
        {
            "server": {"request_timeout_s": 2},
            "services": [service("engine", upstream.url, *MODELS)],
            "ejection": {"consecutive_failures": 1000},
        }
    )


@pytest.fixture(scope="module")
def replayed(finding: Callable[[str], None]) -> Iterator[set[str]]:
    """Names of the recordings that came through; how many of how many is printed at the end."""
    names: set[str] = set()
    yield names
    finding(f"recorded responses that came through: {len(names)} of {len(RECORDINGS)}")


def ask(router: Daemon, recording: Recording) -> Response:
    path, body = recording.own_request() or ("/v1/chat/completions", None)
    return call(router.port, "POST", path, chat() if body is None else body)


@pytest.mark.parametrize("recording", ANSWERS, ids=named)
def test_a_recorded_answer_reaches_the_client_as_it_was(router, upstream, recording, replayed):
    upstream.script = lambda _: recording.steps()
    response = ask(router, recording)
    assert response.status == recording.status
    assert response.body == recording.body
    assert response.whole
    assert end_to_end(response.headers) == recording.end_to_end_headers
    assert response.header("x-router-service") == "engine"
    replayed.add(recording.name)


@pytest.mark.parametrize("recording", BROKEN, ids=named)
def test_a_recording_without_a_whole_answer_is_an_error(router, upstream, recording, replayed):
    """No byte, a head and then nothing, or a head that promises a body that does not come."""
    step, status, code = BROKEN_ENDINGS[recording.kind]
    upstream.script = lambda _: [*(recording.steps() if recording.wire else []), step]
    response = ask(router, recording)
    assert (response.status, response.error["code"]) == (status, code)
    replayed.add(recording.name)


def test_an_answer_that_nobody_asked_for_reaches_nobody(router, upstream):
    """`wire_pipelined` holds two answers: the second is not the next client's."""
    double = next(r for r in RECORDINGS if r.name == "http/wire_pipelined")
    upstream.script = lambda _: double.steps()
    with Client(router.port) as client:
        assert client.request("POST", "/v1/chat/completions", chat()).read().body == double.body
        assert client.surplus == b""
        # Until the surplus has come nobody can know of it, so the next request waits for that.
        upstream.wait_closed(upstream.requests[-1])
        after = next(r for r in RECORDINGS if r.name == "http/chat")
        upstream.script = lambda _: after.steps()
        assert client.request("POST", "/v1/chat/completions", chat()).read().body == after.body
