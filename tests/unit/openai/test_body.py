"""`read_fields`: what is a request body, and what is told to whoever sent something else."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequest, InvalidJson, InvalidModel, InvalidValue, MissingModel
from router.openai.body import read_fields, require_model

NOT_AN_OBJECT = {
    "empty": b"",
    "null": b"null",
    "array": b'[{"model":"m"}]',
    "string": b'"model"',
    "number": b"1",
    "cut-off": b'{"model":"m"',
    "trailing-comma": b'{"model":"m",}',
    "trailing-bytes": b'{"model":"m"} {}',
    "single-quotes": b"{'model':'m'}",
    "unquoted-key": b'{model:"m"}',
    "comment": b'{"model":"m"/**/}',
    "nan": b'{"model":"m","temperature":NaN}',
    "infinity": b'{"model":"m","temperature":-Infinity}',
    "nan-in-a-field-that-is-read": b'{"model":"m","max_tokens":NaN}',
    "leading-zero": b'{"model":"m","seed":01}',
    "raw-nul": b'{"model":"m","user":"a\x00b"}',
    "raw-nul-in-model": b'{"model":"m\x00"}',
    "raw-newline-in-a-string": b'{"model":"m","user":"a\nb"}',
    "unknown-escape": b'{"model":"m","user":"\\q"}',
    "byte-order-mark": b'\xef\xbb\xbf{"model":"m"}',
    "utf-16": '{"model":"m"}'.encode("utf-16"),
    "invalid-utf-8-in-model": b'{"model":"\xff"}',
    "invalid-utf-8-in-a-skipped-value": b'{"model":"m","user":"\xff"}',
    "invalid-utf-8-in-a-skipped-key": b'{"model":"m","\xff":1}',
    "overlong-utf-8": b'{"model":"m","user":"\xc0\xaf"}',
    "surrogate-in-utf-8": b'{"model":"m","user":"\xed\xa0\x80"}',
    "lone-surrogate-in-model": b'{"model":"\\ud800"}',
    "lone-surrogate-in-a-skipped-value": b'{"model":"m","user":"\\ud800"}',
    "lone-low-surrogate-in-a-skipped-value": b'{"model":"m","user":"\\udc00"}',
    "deep": b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep-and-cut-off": b'{"model":"m","x":' + b'{"a":' * 100_000,
    "two-models": b'{"model":"a","model":"b"}',
    "two-equal-models": b'{"model":"a","stream":true,"model":"a"}',
}


@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
def test_what_is_not_one_json_object_is_invalid_json(body):
    with pytest.raises(InvalidJson) as caught:
        read_fields(body)
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("value", [b"5", b"null", b"true", b'["m"]', b'{"a":1}', b"1.5"])
def test_a_model_that_is_no_string_is_invalid_model(value):
    with pytest.raises(InvalidModel) as caught:
        read_fields(b'{"model":' + value + b"}")
    assert caught.value.param == "model"


HUGE = b"1" + b"0" * 400
WRONG_VALUES = {
    "max_tokens": HUGE,
    "max_completion_tokens": b"-" + HUGE,
    "max_output_tokens": b"1e400",
    "n": b"true",
    "stream": b"[]",
    "best_of": b"{}",
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_another_field_that_is_read_is_invalid_value_and_named(name):
    with pytest.raises(InvalidValue) as caught:
        read_fields(b'{"model":"m","%b":%b}' % (name.encode(), WRONG_VALUES[name]))
    assert caught.value.param == name
    assert f"`{name}`" in caught.value.message


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_the_largest_numbers_of_64_bits_are_read(number):
    body = json.dumps({"model": "m", "max_tokens": number}).encode()
    assert read_fields(body).max_tokens == number


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_one_more_than_64_bits_is_invalid_value(number):
    with pytest.raises(InvalidValue):
        read_fields(json.dumps({"model": "m", "max_tokens": number}).encode())


@pytest.mark.parametrize("value", [HUGE, b"1e400", b"-0.0", b'"\\u0000"', b'"\\ud83d\\ude00"'])
def test_a_field_that_is_not_read_may_hold_any_json(value):
    assert read_fields(b'{"model":"m","seed":%b}' % value).model == "m"


def test_null_is_as_good_as_absent():
    names = ("stream", "n", "max_tokens", "max_completion_tokens", "max_output_tokens")
    fields = read_fields(json.dumps({"model": "m"} | dict.fromkeys(names)).encode())
    assert [getattr(fields, name) for name in names] == [None] * len(names)


def test_absent_stream_options_read_as_null():
    assert bytes(read_fields(b'{"model":"m"}').stream_options) == b"null"


def test_stream_options_are_kept_as_bytes():
    body = b'{"model":"m","stream_options":{"include_usage": true}}'
    assert bytes(read_fields(body).stream_options) == b'{"include_usage": true}'


def test_a_nested_model_is_not_the_model():
    body = b'{"metadata":{"model":"inner"},"model":"outer","tools":[{"model":1}]}'
    assert read_fields(body).model == "outer"


def test_keys_that_come_twice_inside_a_value_are_not_the_routers_business():
    assert read_fields(b'{"model":"m","x":{"model":1,"model":2}}').model == "m"


def test_the_text_model_inside_a_string_is_no_second_key():
    body = json.dumps({"model": "m", "user": '"model" "model":"z"'}).encode()
    assert read_fields(body).model == "m"


def test_escaped_keys_are_the_same_keys():
    assert read_fields(b'{"\\u006dodel":"m"}').model == "m"


def test_a_second_model_with_an_escaped_key_is_refused():
    with pytest.raises(InvalidJson):
        read_fields(b'{"model":"a","mod\\u0065l":"b"}')


@pytest.mark.parametrize(
    "twice",
    [
        b'"stream":true,"stream":false',
        b'"max_tokens":1,"max_tokens":100000',
        b'"n":1,"n":64',
    ],
)
def test_any_field_that_is_read_is_refused_when_it_comes_twice(twice):
    with pytest.raises(InvalidJson):
        read_fields(b'{"model":"a",' + twice + b"}")


def test_no_depth_at_all_is_a_fault_of_the_router():
    """Whatever the depth, the body is read or it is refused as invalid JSON."""
    for depth in range(850, 1100):
        nest = b"[" * depth + b"]" * depth
        body = b'{"model":"m","y":{"model":1},"x":' + nest + b"}"
        try:
            read_fields(body)
        except InvalidJson:
            continue


def test_skipped_fields_cost_no_memory():
    body = b'{"model":"m","x":[' + b"[]," * 200_000 + b"[]]}"
    tracemalloc.start()
    read_fields(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def with_keys(count: int) -> bytes:
    """A body of so many short keys at its top level."""
    return b'{"model":"m"' + b"".join(b',"%x":0' % n for n in range(count - 1)) + b"}"


@pytest.mark.parametrize("space", [b"", b" "], ids=["compact", "with a space"])
def test_more_keys_than_any_path_knows_are_refused(space):
    read_fields(with_keys(1_000) + space)
    with pytest.raises(InvalidJson, match="more than 1000 keys at its top level"):
        read_fields(with_keys(1_001) + space)


def test_a_large_body_of_very_many_keys_is_refused_wherever_they_are():
    schema = b'{"a":0' + b',"a":0' * 100_000 + b"}"
    with pytest.raises(InvalidJson, match="more than 100000 keys"):
        read_fields(b'{"model":"m","tools":' + schema + b"}")


def test_colons_within_a_text_are_no_keys():
    text = rb"say \" " + b":" * 300_000 + rb"\\"
    assert read_fields(b'{"model":"m","prompt":"' + text + b'"}').model == "m"


def test_a_hundred_thousand_keys_within_values_are_read():
    schema = b'{"a":0' + b',"a":0' * 99_996 + b"}"
    body = b'{"model":"m","x":"' + b":" * 10 + b'","tools":' + schema + b"}"
    assert body.count(b":") - 10 == 100_000
    assert read_fields(body).model == "m"


@pytest.mark.parametrize("keys", [40_000, 100_000, 1_000_000])
def test_very_many_keys_cost_bounded_memory(keys):
    """To tell that one comes twice, all are built; so there is a bound on how many that may be."""
    body = with_keys(keys)
    tracemalloc.start()
    with pytest.raises(InvalidJson):
        read_fields(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


def test_a_missing_model_is_told_from_an_empty_one():
    with pytest.raises(MissingModel) as missing:
        require_model(read_fields(b"{}"))
    with pytest.raises(InvalidModel) as empty:
        require_model(read_fields(b'{"model":""}'))
    assert (missing.value.code, empty.value.code) == ("missing_model", "invalid_model")


def test_a_model_is_given_as_the_client_wrote_it():
    assert require_model(read_fields('{"model":" Qwen/ü\\u0000 "}'.encode())) == " Qwen/ü\x00 "


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_bad_request(body):
    with contextlib.suppress(BadRequest):
        read_fields(body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=5), st.text(), st.booleans())
def test_every_json_object_is_read_as_json_loads_reads_it(others, model, stream):
    known = set(read_fields(b"{}").__struct_fields__)
    others = {name: value for name, value in others.items() if name not in known}
    try:
        body = json.dumps({**others, "model": model, "stream": stream}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    fields = read_fields(body)
    assert (fields.model, fields.stream) == (model, stream)


@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=5))
def test_a_body_without_a_model_reads_as_unset(content):
    known = set(read_fields(b"{}").__struct_fields__)
    content = {name: value for name, value in content.items() if name not in known}
    assert read_fields(msgspec.json.encode(content)).model is msgspec.UNSET
