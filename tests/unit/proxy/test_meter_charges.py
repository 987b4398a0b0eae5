"""What a request did cost: asked of the engine, charged once, never more than can be known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from router.model import Usage
from router.openai.body import read_fields
from router.openai.cost import FRAME_TOKENS
from router.openai.paths import INFERENCE_PATHS
from router.openai.stream_taps import UsageFilter
from router.openai.unary_tap import BodyTap
from router.proxy import meter as meter_module
from router.proxy.admit import Wanted
from unit.proxy.meter_fakes import (
    CHAT,
    COMPLETIONS,
    CONTEXT,
    HELLO,
    Answered,
    House,
    stream_of,
)

PATH = INFERENCE_PATHS[CHAT]


@pytest.fixture
def house_of(monkeypatch):
    return lambda left=None, context=CONTEXT: House(monkeypatch, left, context)


# -- the usage of a stream ---------------------------------------------------------------------


async def test_a_stream_of_who_has_a_quota_is_asked_for_its_usage_event_by_event(house_of):
    _, asked = await stream_of(house_of(5000))
    assert asked == {"include_usage": True, "continuous_usage_stats": True}


async def test_a_stream_of_who_has_none_is_asked_for_its_last_usage(house_of):
    _, asked = await stream_of(house_of())
    assert asked == {"include_usage": True}


async def test_other_options_stay(house_of):
    _, asked = await stream_of(house_of(), stream_options={"new": 1})
    assert asked == {"new": 1, "include_usage": True}


async def test_a_client_that_asked_itself_is_left_alone(house_of):
    meter, asked = await stream_of(house_of(), stream_options={"include_usage": True})
    assert asked is None
    assert meter.tap(PATH, streams=True).feed(b'data: {"choices":[],"usage":{}}\n\n') != b""


@pytest.mark.parametrize("given", [None, {}, {"include_usage": False}, {"include_usage": None}])
async def test_what_the_client_did_not_ask_for_is_taken_out(house_of, given):
    meter, _ = await stream_of(house_of(5000), stream_options=given)
    assert isinstance(meter.tap(PATH, streams=True), UsageFilter)
    assert meter.tap(PATH, streams=True).feed(b'data: {"choices":[],"usage":{}}\n\n') == b""


async def test_an_answer_that_does_not_stream_after_all_is_left_alone(house_of):
    meter, _ = await stream_of(house_of(5000))
    assert isinstance(meter.tap(PATH, streams=False), BodyTap)


@pytest.mark.parametrize("given", ["x", [], {"include_usage": {}}])
async def test_options_that_the_engine_refuses_are_left_to_it(house_of, given):
    _, asked = await stream_of(house_of(5000), stream_options=given)
    assert asked is None


@pytest.mark.parametrize("given", [0, 1, "no", "false", "true", "ON"])
async def test_usage_is_asked_for_however_the_client_writes_its_flag(house_of, given):
    """Else a stream is counted by its events, which are fewer than its tokens."""
    _, asked = await stream_of(house_of(5000), stream_options={"include_usage": given})
    assert asked == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("given", [0.0, 1.0])
async def test_usage_is_asked_for_though_the_flag_is_a_float(house_of, given):
    _, asked = await stream_of(house_of(5000), stream_options={"include_usage": given})
    assert asked == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings"])
async def test_other_paths_know_no_such_option(house_of, path):
    meter = await house_of(5000).open(path, stream=True, input="x", messages=HELLO, max_tokens=5)
    assert "stream_options" not in meter.changes


# -- after it has ended ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "used"),
    [
        (None, 0),
        (Answered(Usage(3, 4), status=400), 0),
        (Answered(Usage(3, 4), status=500), 0),
        (Answered(Usage(3, 4)), 7),
    ],
)
async def test_what_was_answered_is_charged_and_nothing_else(house_of, answered, used):
    house = house_of(5000)
    (await house.chat(max_tokens=7)).close(answered)
    assert (house.day.used, house.day.reserved) == (used, 0)


async def test_a_prompt_that_was_not_told_is_guessed(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    meter.close(Answered(Usage(0, 4)))
    assert house.day.used == meter.size // 4 + 4


async def test_closing_twice_charges_once(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    meter.close(Answered(Usage(3, 4)))
    meter.close(Answered(Usage(30, 40)))
    meter.close(None)
    assert house.day.used == 7


async def test_a_stream_that_was_cut_is_charged_what_it_told_last(house_of):
    house = house_of(5000)
    meter, _ = await stream_of(house)
    meter.close(Answered(Usage(3, 2), whole=False, events=50))
    assert house.day.used == 5


async def test_an_engine_that_tells_no_usage_is_counted_by_events_and_said_once(house_of, capsys):
    house = house_of(50_000)
    for _ in range(2):
        meter = await house.chat(max_tokens=100)
        meter.close(Answered(events=40))
    assert house.day.used == 2 * (meter.size // 4 + 40)
    assert capsys.readouterr().out.count("usage_not_reported") == 1


async def test_an_answer_without_tokens_is_not_guessed_at(house_of):
    house = house_of(5000)
    meter = await house.open("/tokenize", prompt="x" * 400)
    meter.close(Answered(events=3))
    assert house.day.used == 0


async def test_an_embedding_without_usage_costs_no_answer(house_of):
    house = house_of(5000)
    meter = await house.open("/v1/embeddings", input="x" * 400)
    meter.close(Answered(events=30))
    assert house.day.used == meter.size // 4


async def test_a_recording_is_never_charged_more_than_was_held_for_it(house_of):
    """vLLM tells seconds for audio, no tokens; a quarter of 4 MB would be a million."""
    house = house_of(10_000_000)
    meter = await house.audio(4_000_000)
    held = house.day.reserved
    meter.close(Answered(events=1))
    assert house.day.used <= held
    assert house.ledger.overruns == 0


async def test_nothing_is_learnt_from_a_guess(house_of):
    house = house_of(10_000_000)
    (await house.audio(4_000_000)).close(Answered(events=1))
    assert (await house.chat(max_tokens=7)).cost.prompt_tokens < CONTEXT


async def test_a_prompt_that_cost_more_than_its_bound_raises_the_next_bound(house_of):
    house = house_of(50_000, context=None)
    before = await house.chat(max_tokens=7)
    before.close(Answered(Usage(2000, 7)))
    assert (await house.chat(max_tokens=7)).cost.prompt_tokens >= 2000


@pytest.mark.parametrize("told", [Usage(10**14, 3), Usage(3, 10**14)])
async def test_a_count_that_cannot_be_is_neither_charged_nor_learnt(house_of, capsys, told):
    """What is charged is what was held for it: the most that it may have cost."""
    house = house_of(10_000_000)
    meter = await house.chat(max_tokens=7)
    held = house.day.reserved
    meter.progress(SimpleNamespace(usage=told))
    meter.close(Answered(told))
    assert 0 < house.day.used <= held
    assert house.metering.frames["m"] == FRAME_TOKENS
    assert capsys.readouterr().out.count("usage_not_believed") == 1


async def test_nor_is_it_of_a_stream_that_is_left(house_of):
    house = house_of(10_000_000)
    meter, _ = await stream_of(house)
    held = house.day.reserved
    meter.close(Answered(Usage(10**14, 3), whole=False))
    assert 0 < house.day.used <= held


async def test_what_is_more_than_was_held_but_can_be_is_charged_as_told(house_of):
    house = house_of(10_000_000)
    (await house.chat(max_tokens=7)).close(Answered(Usage(CONTEXT - 7, 7)))
    assert house.day.used == CONTEXT


async def test_a_batch_that_is_left_tells_the_prompts_of_all_its_answers(house_of):
    house = house_of(5000)
    meter = await house.open(COMPLETIONS, prompt=["a", "b"], max_tokens=7, stream=True, n=2)
    tap = meter.tap(PATH, streams=True)
    for index in range(4):
        usage = b'{"prompt_tokens":3,"completion_tokens":1}'
        tap.feed(b'data: {"choices":[{"index":%d}],"usage":%b}\n\n' % (index, usage))
    assert tap.usage == Usage(6, 4)


async def test_progress_is_what_a_crash_would_charge(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    meter.progress(SimpleNamespace(usage=Usage(3, 2)))
    house.ledger.settle(meter.reservation, None)
    assert house.day.used == 5


async def test_what_is_awaited_is_not_taken_for_leaked(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    for _ in range(5):
        assert house.ledger.expire(periods=1) == 0
        meter.progress(None)


async def test_what_was_taken_for_leaked_is_charged_all_the_same(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    house.ledger.expire(periods=0)
    meter.close(Answered(Usage(3, 7)))
    assert house.day.used == 10
    assert meter.charged == Usage(3, 7)


@pytest.mark.parametrize("given", [b'{"x":1e999}', b'{"x":' + b"9" * 5000 + b"}"])
async def test_options_that_nobody_can_read_keep_no_reservation(house_of, given):
    """The engine decides what it makes of them."""
    house = house_of(5000)
    body = (
        b'{"model":"m","messages":[],"stream":true,"max_tokens":7,"stream_options":' + given + b"}"
    )
    wanted = Wanted(INFERENCE_PATHS["/v1/chat/completions"], "m", body, read_fields(body))
    meter = await house.admit(wanted)
    wanted.with_changes(meter.changes)
    meter.close(None)
    assert house.ledger.open_count() == 0


async def test_a_fault_while_preparing_gives_the_reservation_back(house_of, monkeypatch):
    house = house_of(5000)
    monkeypatch.setattr(meter_module, "stream_usage", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await stream_of(house)
    assert house.ledger.open_count() == 0


async def test_a_count_that_cannot_be_costs_no_more_than_was_held(house_of):
    house = house_of(900)
    meter = await house.chat()
    held = house.day.reserved
    meter.close(Answered(Usage(20, 10**12)))
    assert house.day.used == 20 + meter.reservation.granted_completion_tokens <= held
