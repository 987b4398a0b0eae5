"""`members` and `splice`: a change replaces the bytes of one value and leaves every other alone."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidJson
from router.openai.body import members, read_fields, splice

SPACE = st.text(" \t\r\n", max_size=2).map(str.encode)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(['"model":{', "}", "{", ",", '\\"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def written(draw, keys):
    """(key, value) pairs, and one of the many ways to write them as a JSON object."""
    pairs = [(key, draw(VALUES)) for key in keys]
    rows = []
    for key, value in pairs:
        key_text = json.dumps(key, ensure_ascii=draw(st.booleans())).encode()
        if key and draw(st.booleans()):
            key_text = b'"' + "".join(f"\\u{ord(c):04x}" for c in key if ord(c) < 65536).encode()
            key_text = (
                json.dumps(key).encode() if any(ord(c) > 65535 for c in key) else key_text + b'"'
            )
        value_text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
        gaps = [draw(SPACE) for _ in range(4)]
        rows.append(gaps[0] + key_text + gaps[1] + b":" + gaps[2] + value_text + gaps[3])
    inside = b",".join(rows) if rows else draw(SPACE)
    return pairs, draw(SPACE) + b"{" + inside + b"}" + draw(SPACE)


UNIQUE = st.lists(KEYS, unique=True, max_size=5).flatmap(written)
REPEATED = st.lists(KEYS, min_size=1, max_size=4).flatmap(
    lambda keys: st.permutations([*keys, keys[0]]).flatmap(written)
)


@given(UNIQUE)
def test_every_value_is_found_where_it_is(case):
    pairs, body = case
    found = members(body)
    assert list(found.spans) == [key for key, _ in pairs]
    for key, value in pairs:
        start, end = found.spans[key]
        assert json.loads(body[start:end]) == value
        assert body[start:end] == body[start:end].strip(b" \t\r\n")


@given(UNIQUE)
def test_the_closing_brace_is_the_objects_own(case):
    _, body = case
    closing = members(body).closing
    assert body[closing:].strip(b" \t\r\n") == b"}"


@given(REPEATED)
def test_a_key_that_comes_twice_is_always_refused(case):
    _, body = case
    with pytest.raises(InvalidJson, match="twice"):
        members(body)


@given(UNIQUE, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_splice_changes_that_key_alone(case, model):
    _, body = case
    assert json.loads(splice(body, {"model": model})) == {**json.loads(body), "model": model}


@given(UNIQUE, VALUES)
def test_every_byte_outside_the_value_stays(case, value):
    pairs, body = case
    if not pairs:
        return
    key = pairs[-1][0]
    start, end = members(body).spans[key]
    after = splice(body, {key: value})
    assert after[:start] == body[:start]
    assert after[len(after) - len(body[end:]) :] == body[end:]


@given(UNIQUE)
def test_a_key_that_is_not_there_is_put_before_the_closing_brace(case):
    pairs, body = case
    if any(key == "added" for key, _ in pairs):
        return
    closing = members(body).closing
    after = splice(body, {"added": 1})
    assert after == body[:closing] + (b"," if pairs else b"") + b'"added":1' + body[closing:]


def test_several_changes_are_made_in_one_go():
    body = b'{ "stream_options" : null,\n "max_tokens":9 , "model":"a"}'
    changes = {"model": "b", "max_tokens": 3, "stream_options": {"include_usage": True}, "n": 1}
    assert splice(body, changes) == (
        b'{ "stream_options" : {"include_usage":true},\n "max_tokens":3 , "model":"b","n":1}'
    )


def test_no_change_is_no_change():
    body = b' {"a" : 1e400, "b":[1,2]} '
    assert splice(body, {}) == body


def test_numbers_nobody_can_hold_are_carried_over():
    body = b'{"seed":1' + b"0" * 400 + b',"model":"a"}'
    assert splice(body, {"model": "b"}) == body.replace(b'"a"', b'"b"')


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":1,"b":1,"b":1,"a":1}',
        b'{"":1,"":2}',
        b'{"a":{"a":1},"a":{"a":1}}',
    ],
)
def test_equal_values_do_not_hide_a_second_key(body):
    with pytest.raises(InvalidJson):
        members(body)


@pytest.mark.parametrize("body", [b"{}", b" { } ", b'{"a":{}}', b'{"a":{"a":{"a":1}}}'])
def test_an_object_without_a_second_key_is_taken(body):
    assert json.loads(splice(body, {"z": 1})) == {**json.loads(body), "z": 1}


def test_no_depth_that_was_read_fails_to_be_spliced():
    for depth in range(850, 1100):
        body = b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}"
        try:
            read_fields(body)
            splice(body, {"model": "z"})
        except InvalidJson:
            continue


def test_a_long_key_costs_no_more_than_a_few_copies():
    body = b'{"model":"m","' + b"k" * 2**20 + b'":1}'
    tracemalloc.start()
    splice(body, {"model": "z"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
