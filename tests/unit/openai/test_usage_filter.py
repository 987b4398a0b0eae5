"""Usage that the router asked for is read, and taken out of the stream byte for byte."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.model import Usage
from router.openai.stream_taps import UsageFilter, UsageTap
from support.recordings import FOLDER, load

HTTP = FOLDER / "http"
LAST = ("chat_stream_usage", "comp_stream_usage")
EACH = ("chat_stream_usage_continuous", "comp_stream_usage_continuous")


def body_of(name: str) -> bytes:
    return load(HTTP / f"{name}.response.http").body


def passed(tap: UsageFilter, *pieces: bytes) -> bytes:
    return b"".join([*(tap.feed(piece) for piece in pieces), tap.end()])


def events_of(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def told(body: bytes) -> Usage:
    """The usage of the one event without choices."""
    (last,) = [event for event in events_of(body) if b'"choices":[]' in event]
    usage = json.loads(last.removeprefix(b"data: "))["usage"]
    return Usage(usage["prompt_tokens"], usage["completion_tokens"])


@st.composite
def pieces(draw, names):
    body = body_of(draw(st.sampled_from(names)))
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=10)))
    edges = [0, *places, len(body)]
    return body, [body[a:b] for a, b in itertools.pairwise(edges) if a < b]


@settings(deadline=None, max_examples=50)
@given(pieces(LAST))
def test_the_last_event_is_taken_out_however_the_stream_is_cut(case):
    body, parts = case
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=False)
    wanted = b"".join(event for event in events_of(body) if b'"choices":[]' not in event)
    assert passed(tap, *parts) == wanted
    assert tap.usage == told(body)


@settings(deadline=None, max_examples=50)
@given(pieces(EACH))
def test_the_usage_of_each_event_is_taken_out_however_the_stream_is_cut(case):
    body, parts = case
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    left = events_of(passed(tap, *parts))
    whole = [event for event in events_of(body) if b'"choices":[]' not in event]
    assert len(left) == len(whole)
    for got, sent in zip(left[:-1], whole[:-1], strict=True):
        content = json.loads(sent.removeprefix(b"data: "))
        content.pop("usage")
        assert json.loads(got.removeprefix(b"data: ")) == content
    assert left[-1] == whole[-1] == b"data: [DONE]\n\n"
    assert tap.usage == told(body)


@settings(deadline=None, max_examples=50)
@given(pieces(LAST + EACH))
def test_what_the_client_asked_for_itself_passes_untouched(case):
    body, parts = case
    tap = UsageFilter(keep_last=True, keep_each=True, continuous=True)
    assert passed(tap, *parts) == body
    assert tap.usage == told(body)


@pytest.mark.parametrize("name", EACH)
def test_a_stream_that_is_cut_off_has_told_what_it_cost_so_far(name):
    whole = [event for event in events_of(body_of(name)) if b"usage" in event]
    for count in range(1, len(whole)):
        tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
        passed(tap, *whole[:count])
        usage = json.loads(whole[count - 1].removeprefix(b"data: "))["usage"]
        assert tap.usage == Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0))


@pytest.mark.parametrize("keep", [True, False])
def test_an_event_leaves_as_soon_as_it_is_whole(keep):
    tap = UsageFilter(keep_last=keep, keep_each=keep, continuous=False)
    event = b'data: {"choices":[{"index":0}]}\n\n'
    assert tap.feed(event[:9]) == b""
    assert tap.feed(event[9:] + event[:3]) == event
    assert tap.feed(event[3:]) == event


def test_the_choices_of_a_stream_are_added_up():
    event = (
        'data: {"choices":[{"index":%d}],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\n'
    )
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True, n=2)
    for index, count in [(0, 1), (1, 1), (0, 2), (1, 2), (1, 3)]:
        tap.feed((event % (index, count)).encode())
    assert tap.usage == Usage(5, 5)


@pytest.mark.parametrize("n", [1, 2])
def test_the_prompts_of_a_batch_are_added_up(n):
    """Three prompts of 5, 6 and 7 tokens; those of one prompt are numbered one after another."""
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True, n=n)
    for index in range(3 * n):
        tap.feed(chunk(index, 5 + index // n, 1))
    assert tap.usage == Usage(5 + 6 + 7, 3 * n)


def chunk(index: int, prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    content = {"choices": [{"index": index, "text": "x"}], "usage": usage}
    return f"data: {json.dumps(content)}\n\n".encode()


USAGE = {"prompt_tokens": 5, "total_tokens": 6, "completion_tokens": 1}
LOGPROBS = {"content": [{"token": "usage", "logprob": -1.0}]}
MEMBERS: dict[str, dict[str, object]] = {
    "nothing-behind": {"choices": [{"index": 0}], "usage": USAGE},
    "a-value-behind": {"usage": USAGE, "choices": [{"index": 0, "logprobs": LOGPROBS}]},
    "a-value-before": {"choices": [{"index": 0, "logprobs": LOGPROBS}], "usage": USAGE},
    "an-object-behind": {"choices": [{"index": 0}], "usage": USAGE, "x": {"usage": USAGE}},
    "an-object-before": {"x": {"usage": USAGE}, "choices": [{"index": 0}], "usage": USAGE},
    "braces-behind": {"choices": [{"index": 0}], "usage": USAGE, "x": {"usage": {"a": "}}"}}},
    "details": {"choices": [{"index": 0}], "usage": {**USAGE, "d": {"e": {"f": "}"}}}, "x": None},
    "indices": {"x": {"index": 7, "choices": []}, "choices": [{"index": 0}], "usage": USAGE},
}


@pytest.mark.parametrize("separators", [None, (",", ":")], ids=["spaced", "compact"])
@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
def test_the_events_own_usage_alone_is_read_and_taken_out(members, separators):
    event = f"data: {json.dumps(members, separators=separators)}\n\n".encode()
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    left = json.loads(passed(tap, event).removeprefix(b"data: "))
    assert left == {key: value for key, value in members.items() if key != "usage"}
    assert tap.usage == Usage(5, 1)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0}],"x":{"usage":{"prompt_tokens":9}}}\n\n',
        b'data: {"choices":[{"index":0,"token":"usage"}]}\n\n',
        b'data: {"choices":[{"index":0}],"usage":null}\n\n',
        b'data: {"choices":[{"index":0}],"usage":5}\n\n',
        b'data: {"error":{"usage":{"prompt_tokens":9}}}\n\n',
        b'data: "usage" {\n\n',
        b'data: {"usage":{"prompt_tokens":9},"x":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n",
    ],
)
def test_an_event_without_a_usage_of_its_own_passes_as_it_is(event):
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    assert passed(tap, event) == event
    assert tap.usage == Usage()


@pytest.mark.parametrize(
    ("keep_last", "keep_each", "cuts"),
    [(False, False, True), (True, False, True), (True, True, False)],
)
def test_it_tells_whether_it_may_take_something_out(keep_last, keep_each, cuts):
    assert UsageFilter(keep_last=keep_last, keep_each=keep_each, continuous=True).cuts == cuts


def test_a_model_that_writes_of_usage_changes_nothing():
    content = json.dumps('"usage":{"prompt_tokens":9},"choices":[]')
    event = f'data: {{"choices":[{{"index":0,"delta":{{"content":{content}}}}}]}}\n\n'.encode()
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    assert passed(tap, event) == event
    assert tap.usage == Usage()


def test_what_never_becomes_an_event_is_not_held_without_a_bound():
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    data = b"x" * 100_000
    out = passed(tap, *([data] * 10))
    assert out == data * 10
    assert len(tap._carry) <= 256 * 1024


def test_what_follows_the_last_whole_event_is_given_at_the_end():
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    assert tap.feed(b"data: [DO") == b""
    assert tap.end() == b"data: [DO"
    assert tap.end() == b""


def test_a_last_event_without_its_blank_line_is_read_and_taken_out():
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=False)
    usage = b'{"prompt_tokens":7,"completion_tokens":3}'
    told = tap.feed(b'data: {"choices":[],"usage":%b}\n' % usage) + tap.end()
    assert (tap.usage, told) == (Usage(7, 3), b"")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_whose_lines_end_in_crlf_is_read_and_passed_on_as_any_other(size):
    """vLLM ends them in LF; other engines, and proxies before them, do not."""
    body = body_of(EACH[0])
    with_crlf = body.replace(b"\n", b"\r\n")
    plain = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    parts = [with_crlf[at : at + size] for at in range(0, len(with_crlf), size)]
    assert passed(tap, *parts) == passed(plain, body).replace(b"\n", b"\r\n")
    assert (tap.usage, tap.events) == (plain.usage, plain.events)


def test_an_event_that_ends_in_crlf_leaves_as_soon_as_it_has_come():
    tap = UsageFilter(keep_last=False, keep_each=False, continuous=True)
    for event in (b'data: {"a":1}\r\n\r\n', b'data: {"a":2}\r\n\r\n'):
        assert tap.feed(event) == event


@pytest.mark.parametrize(
    "tap", [UsageTap(), UsageFilter(keep_last=False, keep_each=False, continuous=True)]
)
def test_comments_that_keep_a_connection_alive_are_no_events(tap):
    for _ in range(3):
        assert tap.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    tap.feed(b'data: {"a":1}\n\n')
    assert tap.events == 1


@pytest.mark.parametrize("digits", [17, 400])
@pytest.mark.parametrize(
    "tap", [UsageTap(), UsageFilter(keep_last=True, keep_each=True, continuous=False)]
)
def test_a_count_beyond_all_counts_is_none(tap, digits):
    """A sum that it was part of could be told by no page any more."""
    usage = b'{"prompt_tokens":7,"completion_tokens":%b}' % (b"9" * digits)
    tap.feed(b'data: {"choices":[],"usage":%b}\n\n' % usage)
    assert tap.usage == Usage()
