"""What the engine says and how it counts: words, stops, tokens, schemas, prefixes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.simulator.prefix_cache import PrefixCache
from router.simulator.sampling import Sampling
from router.simulator.settings import SimulatorSettings
from router.simulator.text import FinishReason, Script, words
from router.simulator.tokens import Prompt, count_tokens, decode, encode, split
from router.simulator.tools import sample


def say(script):
    """All tokens of a script."""
    made = []
    while not made or made[-1].finish is None:
        made.append(script.next())
    return made


def text_of(tokens):
    return "".join(token.text for token in tokens)


def answer(seed=0, request_seed=0, prompt=b"hello", choice=0, limit=50):
    settings = SimulatorSettings(seed=seed)
    sampling = Sampling(seed=request_seed, ignore_eos=True)
    return text_of(say(sampling.script(Prompt.from_text(prompt, 16), choice, limit, settings)))


def test_the_same_seed_and_request_say_the_same():
    assert answer() == answer()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"request_seed": 1}, {"prompt": b"hullo"}, {"choice": 1}]
)
def test_another_seed_prompt_or_choice_says_something_else(change):
    assert answer() != answer(**change)


def test_an_answer_is_the_beginning_of_a_longer_one():
    assert answer(limit=50).startswith(answer(limit=20))


def test_a_script_ends_at_its_limit_with_that_many_tokens():
    tokens = say(Script(words(1), 7))
    assert len(tokens) == 7
    assert tokens[-1].finish is FinishReason.LENGTH


def test_end_of_text_is_a_token_of_its_own():
    tokens = say(Script(iter(["a", "b"]), 10))
    assert [token.text for token in tokens] == ["a", "b", ""]
    assert tokens[-1].finish is FinishReason.STOP


def test_ignore_eos_and_min_tokens_put_the_end_off():
    settings = SimulatorSettings(answer_tokens=10)
    prompt = Prompt.from_text(b"x", 16)
    assert len(say(Sampling(ignore_eos=True).script(prompt, 0, 400, settings))) == 400
    # The end of text is the one token after those asked for.
    assert len(say(Sampling(min_tokens=90).script(prompt, 0, 400, settings))) == 91
    assert len(say(Sampling().script(prompt, 0, 400, settings))) <= 16


@pytest.mark.parametrize("stops", [("river",), ("lo ri", "zz"), (" ",), ("x", "er")])
def test_a_stop_string_never_shows_even_across_tokens(stops):
    pieces = ["hel", "lo", " ", "riv", "er", " x"]
    whole = "".join(pieces)
    tokens = say(Script(iter(pieces), 10, stops))
    first = min((whole.find(stop), stop) for stop in stops if stop in whole)
    assert text_of(tokens) == whole[: first[0]]
    assert (tokens[-1].finish, tokens[-1].stop_reason) == (FinishReason.STOP, first[1])


def test_text_held_back_for_a_stop_string_comes_out_in_the_end():
    assert text_of(say(Script(iter(["ab", "cd"]), 10, ("de",)))) == "abcd"
    assert text_of(say(Script(iter(["ab", "cd"]), 2, ("de",)))) == "abcd"


def test_a_stop_string_within_min_tokens_is_let_through():
    tokens = say(Script(iter(["a", "b", "c", "a", "d"]), 10, ("a",), min_tokens=3))
    assert text_of(tokens) == "abc"


@given(st.text())
def test_tokens_turn_back_into_their_text(text):
    raw = text.encode()
    assert decode(encode(raw)) == text
    assert count_tokens(raw) == len(encode(raw)) == len(split(raw))


@given(st.lists(st.integers(min_value=0, max_value=1 << 60)))
def test_any_ids_decode_to_some_text(ids):
    assert isinstance(decode(ids), str)


@given(st.binary(min_size=300, max_size=400), st.binary(max_size=100), st.binary(max_size=100))
def test_prompts_that_begin_alike_share_their_first_blocks(common, left, right):
    shared = len(common) // 64
    one, other = (Prompt.from_text(common + tail, 16) for tail in (left, right))
    assert one.blocks[:shared] == other.blocks[:shared]


def test_a_prompt_of_ids_has_as_many_tokens_as_ids():
    prompt = Prompt.from_ids(list(range(40)), 16)
    assert (prompt.tokens, len(prompt.blocks)) == (40, 2)


def test_the_prefix_cache_forgets_what_was_unused_for_longest():
    cache = PrefixCache(3)
    cache.add([1, 2, 3])
    assert cache.match([1]) == 1
    cache.add([4])
    assert len(cache) == 3
    assert [cache.match([block]) for block in (1, 2, 3, 4)] == [1, 0, 1, 1]


def test_a_prefix_ends_at_the_first_block_that_is_not_there():
    cache = PrefixCache(10)
    cache.add([1, 2, 4])
    assert cache.match([1, 2, 3, 4]) == 2


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "paper"),
        ({"enum": ["Paris", "Oslo"]}, "Paris"),
        ({"type": ["integer", "null"]}, 7),
        ({"anyOf": [{"type": "boolean"}]}, True),
        ({"const": 3}, 3),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "number"}, "b": {}}},
            {"a": 0.5},
        ),
        ("nonsense", {}),
    ],
)
def test_a_sample_fits_its_schema(schema, value):
    assert sample(schema) == value


def test_a_schema_deeper_than_reason_ends():
    schema = {"type": "string"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    depth = 0
    value = sample(schema)
    while isinstance(value, dict) and value:
        value, depth = value["a"], depth + 1
    assert depth < 50


def test_words_are_endless_and_not_only_ascii():
    many = "".join(itertools.islice(words(3), 2000))
    assert not many.isascii()
    assert ". " in many
