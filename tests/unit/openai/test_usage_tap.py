"""Usage is read out of an answer wherever its bytes are cut, and equals that of a full parse."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.model import Usage
from router.openai.usage import BodyTap, UsageTap
from support.recordings import FOLDER, Recording, load

GLOBS = ("chat*", "comp*", "emb*", "messages*", "responses*", "rerank*", "score*", "pooling*")


def recorded() -> list[Recording]:
    """Every recorded answer of a path that costs tokens."""
    files = {
        file
        for folder in (FOLDER / "http", *(FOLDER / "variants").iterdir())
        for glob in GLOBS
        for file in folder.glob(f"{glob}.response.http")
    }
    found = [load(file) for file in sorted(files)]
    return [recording for recording in found if recording.kind == "answer"]


RECORDED = recorded()


def documents(body: bytes) -> list[Any]:
    """The JSON objects of an answer: its body, or the data of its events."""
    if body.lstrip().startswith(b"{"):
        return [json.loads(body)]
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line.strip() != b"[DONE]"]


def parsed(body: bytes) -> Usage:
    """The highest counts that a full parse finds."""
    usage = Usage()
    for document in documents(body):
        for holder in (document, document.get("message"), document.get("response")):
            told = (holder.get("usage") if isinstance(holder, dict) else None) or {}
            prompt = told.get("prompt_tokens", told.get("input_tokens", 0)) or 0
            completion = told.get("completion_tokens", told.get("output_tokens", 0)) or 0
            usage = Usage(
                max(usage.prompt_tokens, prompt), max(usage.completion_tokens, completion)
            )
    return usage


def fed(*pieces: bytes, tap: UsageTap | BodyTap | None = None) -> Usage:
    """What is told of these pieces, by the tap for streams unless told otherwise."""
    tap = tap or UsageTap()
    for piece in pieces:
        tap.feed(piece)
    return tap.usage


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def test_answers_of_every_kind_were_recorded_with_usage():
    told = {r.name.partition("/")[2][:4] for r in RECORDED if parsed(r.body).total}
    assert {"chat", "comp", "mess", "resp"} <= told


@pytest.mark.parametrize("recording", RECORDED, ids=lambda r: r.name)
def test_a_recorded_answer_in_one_piece_is_read_as_a_full_parse_reads_it(recording):
    assert fed(recording.body) == parsed(recording.body)


@pytest.mark.parametrize("recording", RECORDED, ids=lambda r: r.name)
def test_a_recorded_answer_byte_by_byte_is_read_as_a_full_parse_reads_it(recording):
    body = recording.body[-60_000:]
    if body != recording.body:
        body = body[body.index(b"\n\n") + 2 :]
    assert fed(*(bytes([byte]) for byte in body)) == parsed(body)


TELLING = [r for r in RECORDED if parsed(r.body).total]
MESSAGES = next(r for r in TELLING if r.name.endswith("/messages_stream")).body


@st.composite
def splits(draw):
    """A recorded answer and any way to cut it."""
    body = draw(st.sampled_from(TELLING)).body
    return body, draw(st.lists(st.integers(0, len(body)), max_size=12))


@settings(max_examples=60, deadline=None)
@given(splits())
@example((MESSAGES, [MESSAGES.rindex(b'"usage":{') + 4]))
def test_however_an_answer_is_cut_its_usage_is_that_of_a_full_parse(case):
    body, places = case
    assert fed(*cut(body, places)) == parsed(body)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TELLING), st.integers(1, 400))
def test_pieces_that_are_whole_events_are_read_as_a_full_parse_reads_them(recording, count):
    events = [event + b"\n\n" for event in recording.body.split(b"\n\n")]
    events[-1] = events[-1][:-2]
    pieces = [b"".join(events[at : at + count]) for at in range(0, len(events), count)]
    assert fed(*pieces) == parsed(recording.body)


@pytest.mark.parametrize("place", range(1, 9))
def test_a_key_cut_behind_a_whole_usage_is_found(place):
    first = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    second = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    edge = second.index(b'"usage"') + place
    assert fed(first + second[:edge], second[edge:]) == Usage(3, 2)


def test_prompt_and_completion_told_in_two_events_of_one_piece_are_both_read():
    start = b'data: {"message":{"usage":{"input_tokens":13,"output_tokens":0}}}\n\n'
    delta = b'data: {"type":"message_delta","usage":{"output_tokens":8}}\n\n'
    assert fed(start + delta) == Usage(13, 8)


def test_prompt_and_completion_told_in_two_pieces_are_both_read():
    start = b'data: {"message":{"usage":{"input_tokens":13,"output_tokens":0}}}\n\n'
    delta = b'data: {"type":"message_delta","usage":{"output_tokens":8}}\n\n'
    assert fed(start, delta) == Usage(13, 8)


@pytest.mark.parametrize(
    "content",
    [
        '"usage":{"prompt_tokens":999,"completion_tokens":999}',
        '{"usage":{"prompt_tokens":999}}',
        '\\"usage":{"prompt_tokens":999}',
        "}}}",
    ],
)
def test_what_a_model_writes_about_usage_is_not_its_usage(content):
    message = {"choices": [{"message": {"content": content}}]}
    body = json.dumps({**message, "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
                      separators=(",", ":")).encode()  # fmt: skip
    assert fed(body) == Usage(1, 2)
    assert fed(*(bytes([byte]) for byte in body)) == Usage(1, 2)


def test_counts_inside_detail_objects_are_not_the_counts():
    body = (
        b'{"usage":{"prompt_tokens_details":{"prompt_tokens":7,"cached_tokens":7},'
        b'"completion_tokens_details":{"completion_tokens":9},"prompt_tokens":5,'
        b'"completion_tokens":6,"total_tokens":11}}'
    )
    assert fed(body) == Usage(5, 6)


@pytest.mark.parametrize("body", [b"", b'{"usage":null}', b'{"usage":{}}', b"data: [DONE]\n\n"])
def test_an_answer_that_tells_none_has_none(body):
    assert fed(body) == Usage()


def test_null_counts_are_none():
    assert fed(b'{"usage":{"prompt_tokens":4,"completion_tokens":null}}') == Usage(4, 0)


def test_counts_never_fall():
    first = b'{"usage":{"prompt_tokens":4,"completion_tokens":9}}'
    second = b'{"usage":{"prompt_tokens":4,"completion_tokens":2}}'
    assert fed(first, second) == Usage(4, 9)


def test_the_usage_may_be_asked_for_at_any_time():
    tap = UsageTap()
    tap.feed(b'{"usage":{"prompt_tokens":4,"completion_tokens":1}}\n')
    assert tap.usage == Usage(4, 1)
    tap.feed(b'{"usage":{"prompt_tokens":4,"completion_tokens":2}}\n')
    assert tap.usage == tap.usage == Usage(4, 2)


def test_a_usage_that_was_cut_off_does_not_count():
    assert fed(b'{"usage":{"prompt_tokens":4,"completion_tokens":1') == Usage()


def test_an_object_that_never_closes_is_not_kept():
    tap = UsageTap()
    tap.feed(b'"usage":{')
    for _ in range(100):
        tap.feed(b"x" * 1000)
    assert len(tap._carry) < 4096


# -- bodies that are one JSON object ---------------------------------------------------------------

UNARY = [r for r in RECORDED if r.body.lstrip().startswith(b"{")]


def told(body: bytes) -> Usage:
    return fed(body, tap=BodyTap())


def told_by_byte(body: bytes) -> Usage:
    return fed(*(bytes([byte]) for byte in body), tap=BodyTap())


@pytest.mark.parametrize("recording", UNARY, ids=lambda r: r.name)
def test_a_recorded_body_is_read_as_a_full_parse_reads_it(recording):
    assert told(recording.body) == parsed(recording.body)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(UNARY), st.data())
def test_however_a_body_is_cut_its_usage_is_that_of_a_full_parse(recording, data):
    places = data.draw(st.lists(st.integers(0, len(recording.body)), max_size=12))
    assert fed(*cut(recording.body, places), tap=BodyTap()) == parsed(recording.body)


BODIES = {
    "spaced": b'{ "usage" : { "prompt_tokens" : 3 , "completion_tokens" : 4 } }',
    "indented": b'{\n  "usage": {\n    "completion_tokens": 4,\n    "prompt_tokens": 3\n  }\n}\n',
    "details": b'{"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4,'
    b'"prompt_tokens_details":{"prompt_tokens":9}}}',
    "behind-a-text": b'{"text":"\\"usage\\":{\\"prompt_tokens\\":9}",'
    b'"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    "before-a-text": b'{"usage":{"prompt_tokens":3,"completion_tokens":4},'
    b'"text":"\\"usage\\":{\\"prompt_tokens\\":9}"}',
    "before-more": b'{"usage":{"prompt_tokens":3,"completion_tokens":4},"x":"'
    + b"x" * 5000
    + b'"}',
    "input-and-output": b'{"usage":{"input_tokens":3,"output_tokens":4}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_read_in_one_piece_and_in_many(body):
    assert told(body) == told_by_byte(body) == Usage(3, 4)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b'{"usage":null}', b'{"usage":{}}', b'{"usage":1}', b'{"usage":"no"}',
        b'{"usage":{"prompt_tokens":4,"completion_tokens":1', b'{"usage"', b"RIFF\x00\xff",
    ],
)  # fmt: skip
def test_a_body_that_tells_none_has_none(body):
    assert told(body) == told_by_byte(body) == Usage()


def test_a_body_is_passed_on_as_it_came_and_is_not_kept():
    tap = BodyTap()
    pieces = [b"x" * 1000, b'"usage":{', *[b"y" * 1000] * 100]
    assert [tap.feed(piece) for piece in pieces] == pieces
    assert tap.end() == b""
    assert len(tap._carry) + len(tap._found) < 8192
