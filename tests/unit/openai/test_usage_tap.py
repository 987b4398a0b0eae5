"""Usage is read out of a stream wherever its bytes are cut, and equals that of a full parse."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.model import Usage
from router.openai.stream_taps import NumberedTap, UsageTap
from unit.openai.tap_fakes import RECORDED, STREAMS, bytewise, cut, fed, parsed

TELLING = [each for each in STREAMS if parsed(each.body).total]
MESSAGES = next(each for each in TELLING if each.name.endswith("/messages_stream")).body
ABSURD = 10**14


def told(*pieces: bytes) -> Usage:
    return fed(UsageTap(), *pieces)


def event(content: object, kind: str = "") -> bytes:
    """An event as vLLM writes it, without spaces."""
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


def test_streams_of_every_kind_were_recorded_with_usage():
    kinds = {each.name.partition("/")[2][:4] for each in RECORDED if parsed(each.body).total}
    assert {"chat", "comp", "mess", "resp"} <= kinds


@pytest.mark.parametrize("recording", STREAMS, ids=lambda each: each.name)
def test_a_recorded_stream_in_one_piece_is_read_as_a_full_parse_reads_it(recording):
    assert told(recording.body) == parsed(recording.body)


@pytest.mark.parametrize("recording", STREAMS, ids=lambda each: each.name)
def test_a_recorded_stream_byte_by_byte_is_read_as_a_full_parse_reads_it(recording):
    body = recording.body[-60_000:]
    if body != recording.body:
        body = body[body.index(b"\n\n") + 2 :]
    assert told(*bytewise(body)) == parsed(body)


@st.composite
def splits(draw):
    """A recorded stream and any way to cut it."""
    body = draw(st.sampled_from(TELLING)).body
    return body, draw(st.lists(st.integers(0, len(body)), max_size=12))


@settings(max_examples=60, deadline=None)
@given(splits())
@example((MESSAGES, [MESSAGES.rindex(b'"usage":{') + 4]))
def test_however_a_stream_is_cut_its_usage_is_that_of_a_full_parse(case):
    body, places = case
    assert told(*cut(body, places)) == parsed(body)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TELLING), st.integers(1, 400))
def test_pieces_that_are_whole_events_are_read_as_a_full_parse_reads_them(recording, count):
    events = [event + b"\n\n" for event in recording.body.split(b"\n\n")]
    events[-1] = events[-1][:-2]
    pieces = [b"".join(events[at : at + count]) for at in range(0, len(events), count)]
    assert told(*pieces) == parsed(recording.body)


@pytest.mark.parametrize("place", range(1, 9))
def test_a_key_cut_behind_a_whole_usage_is_found(place):
    first = event({"usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    second = event({"usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    edge = second.index(b'"usage"') + place
    assert told(first + second[:edge], second[edge:]) == Usage(3, 2)


START = event({"type": "message_start", "message": {"usage": {"input_tokens": 13,
                                                              "output_tokens": 0}}})  # fmt: skip
DELTA = event({"type": "message_delta", "usage": {"output_tokens": 8}})


@pytest.mark.parametrize("pieces", [[START + DELTA], [START, DELTA]], ids=["one", "two"])
def test_prompt_and_completion_told_in_two_events_are_both_read(pieces):
    assert told(*pieces) == Usage(13, 8)


def test_the_cached_part_of_a_prompt_is_a_part_of_it():
    """As Anthropic's form has it: the three numbers are of different tokens."""
    usage = {"input_tokens": 5, "output_tokens": 8, "cache_read_input_tokens": 96,
             "cache_creation_input_tokens": 16}  # fmt: skip
    assert told(event({"type": "message_delta", "usage": usage})) == Usage(117, 8)


# -- what has the name, and is no usage ------------------------------------------------------------


def response(usage: object, **echoed: object) -> bytes:
    told = {"id": "resp_1", **echoed, "usage": usage, "user": None}
    return event({"type": "response.completed", "response": told}, "response.completed")


REAL = {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34}
FAKE = {"input_tokens": ABSURD, "output_tokens": ABSURD}


@pytest.mark.parametrize(
    "echoed",
    [
        {"tools": [{"parameters": {"properties": {"usage": FAKE}}}]},
        {"tools": [{"parameters": {"properties": {"usage": {"description": "{" * 40}}}}]},
        {"tools": [{"parameters": {"properties": {"usage": {"pad": "y" * 5000}}}}]},
        {"metadata": {"usage": FAKE}},
        {"instructions": 'say "usage":{"input_tokens":9}'},
        {"user": "usage"},
    ],
    ids=["counts", "braces", "long", "metadata", "text", "value"],
)
def test_what_a_client_has_echoed_is_no_usage(echoed):
    stream = response(None, **echoed) + response(REAL, **echoed)
    assert told(stream) == told(*bytewise(stream)) == Usage(30, 4)
    assert told(response(None, **echoed)) == Usage()


def test_what_is_echoed_behind_the_usage_is_none():
    said = {"content": [{"tools": [{"parameters": {"usage": FAKE}}]}]}
    done = {"id": "resp_1", "usage": REAL, "output_messages": [said]}
    assert told(event({"response": done, "type": "response.completed"})) == Usage(30, 4)


def test_what_a_model_calls_a_tool_with_is_no_usage():
    block = {"type": "tool_use", "input": {"usage": FAKE}}
    begun = event({"type": "content_block_start", "content_block": block})
    assert told(START + begun + DELTA) == Usage(13, 8)


@pytest.mark.parametrize("content", ['"usage":{"prompt_tokens":999}', "usage", "}}}"])
def test_what_a_model_writes_about_usage_is_not_its_usage(content):
    stream = event({"choices": [{"delta": {"content": content}}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 2}})  # fmt: skip
    assert told(stream) == told(*bytewise(stream)) == Usage(1, 2)


def test_counts_inside_detail_objects_are_not_the_counts():
    details = {"prompt_tokens": 7, "cached_tokens": 7}
    usage = {"prompt_tokens_details": details, "prompt_tokens": 5, "completion_tokens": 6}
    assert told(event({"usage": usage})) == Usage(5, 6)


@pytest.mark.parametrize(
    "body",
    [
        b"", b'data: {"usage":null}\n\n', b'data: {"usage":{}}\n\n', b'data: {"usage":5}\n\n',
        b"data: [DONE]\n\n", b'data: {"usage":\n\n', b'data: {"message":"no","usage":{}}\n\n',
        b'data: {"usage":{"prompt_tokens":-4,"completion_tokens":-1}}\n\n',
        b'data: {"usage":{},"x":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n",
    ],
)  # fmt: skip
def test_a_stream_that_tells_none_has_none(body):
    assert told(body) == Usage()


def test_null_counts_are_none():
    assert told(event({"usage": {"prompt_tokens": 4, "completion_tokens": None}})) == Usage(4, 0)


def test_counts_never_fall():
    first = event({"usage": {"prompt_tokens": 4, "completion_tokens": 9}})
    second = event({"usage": {"prompt_tokens": 4, "completion_tokens": 2}})
    assert told(first, second) == Usage(4, 9)


def test_the_usage_may_be_asked_for_at_any_time():
    tap = UsageTap()
    tap.feed(event({"usage": {"prompt_tokens": 4, "completion_tokens": 1}}))
    assert tap.usage == Usage(4, 1)
    tap.feed(event({"usage": {"prompt_tokens": 4, "completion_tokens": 2}}))
    assert tap.usage == tap.usage == Usage(4, 2)


def test_a_usage_that_was_cut_off_does_not_count():
    assert told(b'data: {"usage":{"prompt_tokens":4,"completion_tokens":1') == Usage()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
def test_a_usage_counts_however_its_line_ends(end):
    assert told(b'data: {"usage":{"prompt_tokens":4,"completion_tokens":1}}' + end) == Usage(4, 1)


def test_a_line_that_never_ends_is_not_kept():
    tap = UsageTap()
    tap.feed(b'data: {"usage":{')
    for _ in range(100):
        tap.feed(b"x" * 65_536)
    assert len(tap._carry) <= 1024 * 1024


def test_every_event_of_a_read_is_counted():
    """Where a client reads slowly many come in one; each is at least a token."""
    tap = UsageTap()
    tap.feed(b'data: {"type":"content_block_delta"}\n\n' * 500)
    assert tap.events == 500


# -- numbers of events -----------------------------------------------------------------------------

NUMBERED = b"".join(
    event({"delta": 'a "sequence_number":9, b', "sequence_number": n, "type": "x"}, "x")
    for n in (7, 8, 12)
)


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_the_number_that_comes_next_is_known_however_the_stream_is_cut(size):
    tap = NumberedTap()
    for at in range(0, len(NUMBERED), size):
        tap.feed(NUMBERED[at : at + size])
    assert tap.next_number == 13


def test_a_number_that_is_not_whole_yet_does_not_count():
    tap = NumberedTap()
    end = NUMBERED.rindex(b"12") + 1
    tap.feed(NUMBERED[:200])
    tap.feed(NUMBERED[200:end])
    assert tap.next_number == 9


def test_a_stream_of_responses_is_read_for_its_usage_as_any_other():
    recording = next(each for each in TELLING if "resp" in each.name)
    assert fed(NumberedTap(), recording.body) == parsed(recording.body)


def test_a_recorded_stream_of_responses_is_numbered_from_0_without_a_gap():
    recording = next(each for each in TELLING if "resp" in each.name)
    tap = NumberedTap()
    tap.feed(recording.body)
    assert tap.next_number == recording.body.count(b"sequence_number")
