"""What a request may cost is held before it is sent: in full, or as much as is left."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from router.errors import InsufficientQuota, InvalidValue, NoHealthyBackend
from router.ledger import Limits
from router.model import Usage
from router.openai.paths import INFERENCE_PATHS
from router.openai.stream_taps import UsageTap
from router.proxy.answer import ConnectFailed
from router.proxy.meter import Unmetered
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, card, named, spec
from unit.proxy.meter_fakes import (
    CHAT,
    COMPLETIONS,
    CONTEXT,
    NOON,
    Answered,
    House,
)


@pytest.fixture
def house_of(monkeypatch):
    return lambda left=None, context=CONTEXT: House(monkeypatch, left, context)


async def test_what_it_may_cost_is_held_until_it_ends(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    assert house.day.reserved == meter.weight == meter.cost.prompt_tokens + 7
    meter.close(Answered(Usage(3, 4)))
    assert (house.day.reserved, house.day.used) == (0, 7)


async def test_where_all_fits_nobody_is_asked_and_nothing_is_changed(house_of):
    house = house_of(5000)
    meter = await house.chat(max_tokens=7)
    assert (house.asked, meter.changes) == ([], {})


async def test_near_the_end_of_a_quota_the_engine_counts_and_the_answer_is_limited(house_of):
    house = house_of(50)
    house.counts = 9
    meter = await house.chat(max_tokens=900)
    assert len(house.asked) == 1
    assert meter.changes == {"max_tokens": 41}
    assert house.day.remaining == 0


async def test_an_answer_is_not_cut_short_by_a_bound_where_the_engine_can_count(house_of):
    """By its bytes the prompt would leave some hundred tokens; in truth it leaves all but nine."""
    house = house_of(600)
    house.counts = 9
    meter = await house.chat(max_tokens=500)
    assert (len(house.asked), meter.changes) == (1, {})


async def test_several_answers_share_what_is_left(house_of):
    house = house_of(50)
    house.counts = 9
    meter = await house.chat(max_tokens=900, n=4)
    assert meter.changes == {"max_tokens": 10}


async def test_the_limit_that_the_client_used_is_the_one_that_is_lowered(house_of):
    house = house_of(50)
    house.counts = 9
    meter = await house.chat(max_completion_tokens=900, max_tokens=5)
    assert meter.changes == {"max_completion_tokens": 41}


async def test_a_prompt_that_does_not_fit_is_refused_and_holds_nothing(house_of):
    house = house_of(50)
    house.counts = 50
    with pytest.raises(InsufficientQuota, match=r"quota of 50 tokens a day .* `acme` .* 51 needed"):
        await house.chat(max_tokens=900)
    assert house.day.reserved == 0


@pytest.mark.parametrize(
    "counts",
    [
        None,
        ConnectFailed("refused"),
        TimeoutError(),
        b"not json",
        b'{"count":"x"}',
        b'{"count":-100000}',
        b'{"count":1%b}' % (b"0" * 400),
        b'{"count":5,"tokens":%b}' % (b"[" * 3000 + b"]" * 3000),
    ],
    ids=lambda counts: repr(counts)[:20],
)
async def test_where_the_engine_does_not_count_the_bound_stands(house_of, counts):
    house = house_of(300)
    house.counts = counts
    with pytest.raises(InsufficientQuota):
        await house.chat(max_tokens=900)
    assert named(house.fleet, "a").in_flight == 0


async def test_a_full_engine_is_asked_too_for_its_request_may_wait_for_a_slot(house_of):
    house = house_of(50)
    house.counts = 9
    house.fleet.take("m")
    meter = await house.chat(max_tokens=900)
    assert meter.cost.prompt_tokens == 9
    assert named(house.fleet, "a").in_flight == 1


async def test_where_no_engine_is_well_that_is_said_and_not_that_the_quota_is_used_up(house_of):
    house = house_of(50)
    house.fleet.set_health(named(house.fleet, "a"), UNHEALTHY)
    with pytest.raises(NoHealthyBackend):
        await house.chat(max_tokens=900)
    assert house.day.reserved == 0


def join(house: House, *names: str) -> None:
    """Have other engines serve the model, too."""
    house.fleet.publish("yaml", [spec("a"), *map(spec, names)])
    for name in names:
        service = named(house.fleet, name)
        house.fleet.set_health(service, HEALTHY, [card("m", max_model_len=CONTEXT)])


async def test_where_one_engine_does_not_count_another_is_asked(house_of):
    house = house_of(50)
    join(house, "b")
    house.counts = [ConnectFailed("refused"), 9]
    meter = await house.chat(max_tokens=900)
    assert meter.cost.prompt_tokens == 9


async def test_two_engines_are_asked_at_most(house_of):
    house = house_of(50)
    join(house, "b", "c")
    with pytest.raises(InsufficientQuota):
        await house.chat(max_tokens=900)
    assert len(house.asked) == 2


async def test_an_engine_that_goes_while_another_is_asked_is_not_asked(house_of):
    house = house_of(50)
    join(house, "b")

    async def last_words():
        house.asked.append(b"")
        house.fleet.publish("yaml", [])
        return 404, b""

    house.answer_count = last_words
    with pytest.raises(InsufficientQuota):
        await house.chat(max_tokens=900)
    assert len(house.asked) == 1


@pytest.mark.parametrize(("used", "asked"), [(48, 1), (49, 0), (50, 0)])
async def test_where_no_prompt_at_all_would_fit_nobody_is_asked(house_of, used, asked):
    """A token of prompt and one of answer is the least; else engines count for nothing."""
    house = house_of(50)
    house.ledger.settle(house.ledger.reserve("acme", used, 0, NOON), Usage(used, 0))
    with pytest.raises(InsufficientQuota):
        await house.chat(max_tokens=900)
    assert len(house.asked) == asked


async def test_a_quota_that_is_used_up_is_said_also_where_no_engine_is_well(house_of):
    house = house_of(50)
    house.ledger.settle(house.ledger.reserve("acme", 50, 0, NOON), Usage(50, 0))
    house.fleet.set_health(named(house.fleet, "a"), UNHEALTHY)
    with pytest.raises(InsufficientQuota):
        await house.chat(max_tokens=900)


async def test_few_are_counted_at_once(house_of):
    house = house_of(1000)
    running, most = 0, 0

    async def slow():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return 200, b'{"count":9}'

    house.answer_count = slow
    asking = [house.chat(max_tokens=900, n=2) for _ in range(50)]
    await asyncio.gather(*asking, return_exceptions=True)
    assert most == 16


async def test_several_prompts_are_not_asked_for_they_can_not_be_counted(house_of):
    house = house_of(700)
    meter = await house.open(COMPLETIONS, prompt=["a", "b"], max_tokens=900)
    assert house.asked == []
    assert meter.cost.prompt_tokens + 2 * meter.changes["max_tokens"] <= 700


async def test_a_used_up_number_of_requests_asks_nobody(house_of):
    house = house_of(50)
    house.ledger.configure({"acme": Limits(daily_requests=0)})
    with pytest.raises(InsufficientQuota, match="requests a day"):
        await house.chat(max_tokens=7)
    assert house.asked == []


async def test_a_limit_is_written_where_the_engine_would_keep_to_none(house_of):
    house = house_of(50_000, context=None)
    meter = await house.chat()
    assert meter.changes == {"max_tokens": 4096}


async def test_who_has_no_quota_gets_no_limit(house_of):
    meter = await house_of(context=None).chat()
    assert meter.changes == {}


async def test_an_answer_that_could_only_be_fetched_later_is_refused(house_of):
    with pytest.raises(InvalidValue, match="background"):
        await house_of(5000).open("/v1/responses", input="x", background="true")


async def test_the_same_name_on_another_path_is_no_matter(house_of):
    """The engine ignores unknown fields there."""
    await house_of(5000).chat(background=True, max_tokens=7)


async def test_the_refusal_tells_when_the_window_ends(house_of):
    house = house_of(5)
    with pytest.raises(InsufficientQuota) as caught:
        await house.chat()
    assert 0 < caught.value.retry_after_s <= 86_400


async def test_what_running_requests_hold_is_not_called_used_up(house_of):
    house = house_of(600)
    await house.chat(max_tokens=150)
    with pytest.raises(InsufficientQuota, match="held by running requests: 0 used") as caught:
        await house.chat(max_tokens=150)
    assert caught.value.retry_after_s == 5


# -- headers -----------------------------------------------------------------------------------


async def test_the_headers_tell_the_tightest_windows(house_of):
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 4000, 10)})
    meter = await house.chat(max_tokens=7)
    lines = told(meter.rate_lines(monotonic()))
    assert lines[b"x-ratelimit-limit-requests"] == b"10"
    assert lines[b"x-ratelimit-remaining-requests"] == b"9"
    assert lines[b"x-ratelimit-limit-tokens"] == b"4000"
    assert lines[b"x-ratelimit-remaining-tokens"] == b"%d" % (4000 - meter.weight)
    assert lines[b"x-ratelimit-reset-requests"].endswith(b"s")
    assert len(lines) == 6


def told(lines: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b": ") for line in lines.split(b"\r\n") if line)


async def test_of_two_windows_of_tokens_the_one_with_less_left_is_told(house_of):
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 9000, 10)})
    lines = told((await house.chat(max_tokens=7)).rate_lines(monotonic()))
    assert lines[b"x-ratelimit-limit-tokens"] == b"5000"


async def test_a_request_and_a_refusal_are_told_the_same(house_of):
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 4000, 10)})
    meter = await house.chat(max_tokens=7)
    assert meter.rate_lines(monotonic()) == house.metering.rate_lines("acme")


async def test_who_has_a_limit_of_one_kind_alone_is_told_of_that(house_of):
    lines = told((await house_of(5000).chat(max_tokens=7)).rate_lines(monotonic()))
    assert set(lines) == {
        b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens",
    }  # fmt: skip


async def test_less_than_nothing_is_never_left(house_of):
    """After a reload that lowered the limits."""
    house = house_of(5000)
    meters = [await house.chat(max_tokens=7) for _ in range(3)]
    house.ledger.configure({"acme": Limits(1, 1, 1)})
    lines = told(meters[0].rate_lines(monotonic()))
    assert lines[b"x-ratelimit-remaining-tokens"] == b"0"
    assert lines[b"x-ratelimit-remaining-requests"] == b"0"


async def test_an_answer_after_midnight_is_told_of_the_new_day(house_of):
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 9000, 10)})
    meter = await house.chat(max_tokens=7)
    house.now += 86_400
    lines = told(meter.rate_lines(monotonic() + 86_400))
    assert lines[b"x-ratelimit-remaining-requests"] == b"10"
    assert int(lines[b"x-ratelimit-reset-requests"].rstrip(b"s")) > 0


async def test_the_seconds_until_the_reset_go_down(house_of):
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 9000, 10)})
    meter = await house.chat(max_tokens=7)
    begin = monotonic()
    first = told(meter.rate_lines(begin))
    house.now += 2
    second = told(meter.rate_lines(begin + 2))
    for name in (b"x-ratelimit-reset-requests", b"x-ratelimit-reset-tokens"):
        assert int(first[name].rstrip(b"s")) - int(second[name].rstrip(b"s")) == 2


async def test_windows_that_are_in_force_are_told_whatever_the_clock_did(house_of):
    """Of a request that began before the clock was set back over midnight, and forth again."""
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 9000, 10)})
    meter = await house.chat(max_tokens=7)
    house.now -= 86_400
    await house.chat(max_tokens=7)
    house.now += 86_400
    for _ in range(3):
        await house.chat(max_tokens=7)
    lines = told(meter.rate_lines(monotonic()))
    assert lines[b"x-ratelimit-remaining-requests"] == b"6"
    assert lines[b"x-ratelimit-remaining-tokens"] == b"%d" % (5000 - 4 * meter.weight)


async def test_of_two_windows_with_one_limit_the_tightest_ones_end_is_told(house_of):
    """A day's and a month's limit may be the same number; which is tighter changes with time."""
    house = house_of(5000)
    house.ledger.configure({"acme": Limits(5000, 5000, 10)})
    meter = await house.chat(max_tokens=7)
    windows = meter.reservation.windows
    first = told(meter.rate_lines(monotonic()))
    windows.month_tokens.left -= 100
    windows.fold()
    second = told(meter.rate_lines(monotonic()))
    ends = [int(lines[b"x-ratelimit-reset-tokens"].rstrip(b"s")) for lines in (first, second)]
    assert ends[1] - ends[0] == windows.month_tokens.end - windows.day_tokens.end


async def test_without_limits_there_are_no_such_headers(house_of):
    assert (await house_of().chat()).rate_lines(monotonic()) == b""


def test_what_nobody_pays_for_is_free():
    meter = Unmetered()
    assert (meter.weight, meter.changes, meter.rate_lines(monotonic())) == (1, {}, b"")
    assert isinstance(meter.tap(INFERENCE_PATHS[CHAT], streams=True), UsageTap)
    meter.close(None)
