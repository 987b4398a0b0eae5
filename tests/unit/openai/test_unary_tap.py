"""Usage is read out of a JSON body in any pieces, and equals that of a full parse."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.model import Usage
from router.openai.unary_tap import BodyTap
from unit.openai.tap_fakes import UNARY, bytewise, cut, fed, parsed


def told(*pieces: bytes) -> Usage:
    return fed(BodyTap(), *pieces)


@pytest.mark.parametrize("recording", UNARY, ids=lambda each: each.name)
def test_a_recorded_body_is_read_as_a_full_parse_reads_it(recording):
    assert told(recording.body) == parsed(recording.body)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(UNARY), st.data())
def test_however_a_body_is_cut_its_usage_is_that_of_a_full_parse(recording, data):
    places = data.draw(st.lists(st.integers(0, len(recording.body)), max_size=12))
    assert told(*cut(recording.body, places)) == parsed(recording.body)


COUNTS = st.fixed_dictionaries({"prompt_tokens": st.integers(0, 9)})
TEXTS = st.sampled_from(["usage", '"usage":{', "{", "}", "\\", '\\"', '"', "a"])
INSIDE = st.recursive(
    TEXTS | st.none(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each | COUNTS, max_size=3),
    max_leaves=12,
)
ABSURD = {"prompt_tokens": 10**14}


@settings(max_examples=300, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("abc"), INSIDE, max_size=2),
    usage=st.none() | COUNTS,
    after=st.dictionaries(st.sampled_from("def"), INSIDE, max_size=2),
    indent=st.sampled_from([None, 1]),
    places=st.lists(st.integers(0, 400), max_size=8),
)
@example({"a": {"usage": ABSURD}}, {"prompt_tokens": 3}, {}, None, [20])
@example({}, {"prompt_tokens": 3}, {"d": [{"usage": ABSURD}]}, None, [0, 25, 52])
@example({"a": "usage"}, {"prompt_tokens": 3}, {"d": "usage"}, None, [9])
@example({}, {"prompt_tokens": 3}, {"d": "}\\"}, None, [41, 42, 43])
def test_of_all_that_has_the_name_the_bodys_own_member_is_the_usage(
    before, usage, after, indent, places
):
    body = json.dumps({**before, "usage": usage, **after}, indent=indent).encode()
    wanted = Usage(usage["prompt_tokens"]) if usage else Usage()
    pieces = cut(body, [min(place, len(body)) for place in places])
    assert told(body) == told(*pieces) == told(*bytewise(body)) == wanted


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
    "behind-a-large-one": b'{"a":{"usage":{"x":"' + b"{" * 9000 + b'"}},'
    b'"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    "input-and-output": b'{"usage":{"input_tokens":3,"output_tokens":4}}',
    "cached": b'{"usage":{"input_tokens":1,"output_tokens":4,'
    b'"cache_creation_input_tokens":0,"cache_read_input_tokens":2}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_read_in_one_piece_and_in_many(body):
    assert told(body) == told(*bytewise(body)) == Usage(3, 4)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b'{"usage":null}', b'{"usage":{}}', b'{"usage":1}', b'{"usage":"no"}',
        b'{"usage":{"prompt_tokens":4,"completion_tokens":1', b'{"usage"', b"RIFF\x00\xff",
        b'{"a":{"usage":{"prompt_tokens":4}}}', b'{"usage":{"prompt_tokens":4},"a":"',
    ],
)  # fmt: skip
def test_a_body_that_tells_none_has_none(body):
    assert told(body) == told(*bytewise(body)) == Usage()


@pytest.mark.parametrize("beginning", [b'"usage":{', b'"usage":{"a":"', b'{"usage":{},"a":"'])
def test_a_body_is_not_kept(beginning):
    tap = BodyTap()
    for piece in (b"x" * 1000, beginning, *[b"y" * 1000] * 100):
        tap.feed(piece)
    assert len(tap._carry) < 10_000


@pytest.mark.parametrize("digits", [17, 400])
def test_a_count_beyond_all_counts_is_none(digits):
    tap = BodyTap()
    tap.feed(b'{"usage":{"prompt_tokens":7,"completion_tokens":%b}}' % (b"9" * digits))
    tap.end()
    assert tap.usage == Usage()
