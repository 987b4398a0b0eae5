"""What every ledger promises, whatever store is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledger_stores import STORES, Store

from router.ledger import Kind, Ledger, Limits, Period, Refusal, Reservation, WindowUsage
from router.model import Usage


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-01-31T12:00:00")
MIDNIGHT = at("2026-02-01T00:00:00")
LIMITS = {"acme": Limits(daily_tokens=1_000, monthly_tokens=5_000, daily_requests=10)}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = request.param(tmp_path, LIMITS, NOW)
    yield store
    store.close()


@pytest.fixture
def ledger(store: Store) -> Iterator[Ledger]:
    yield store.ledger
    assert store.ledger.discrepancies() == []


def reserve(
    ledger: Ledger, prompt: int, completion: int, now: float = NOW, *, clamp_to: int = 1
) -> Reservation:
    outcome = ledger.reserve("acme", prompt, completion, now, clamp_to)
    assert isinstance(outcome, Reservation)
    return outcome


def refuse(
    ledger: Ledger, prompt: int, completion: int, now: float = NOW, *, clamp_to: int = 1
) -> Refusal:
    before = ledger.windows("acme", now)
    outcome = ledger.reserve("acme", prompt, completion, now, clamp_to)
    assert isinstance(outcome, Refusal)
    assert ledger.windows("acme", now) == before, "a refusal takes nothing"
    return outcome


def numbers(ledger: Ledger, now: float = NOW) -> list[tuple[int, int]]:
    return [(each.used, each.reserved) for each in ledger.windows("acme", now)]


def test_a_reservation_is_held_in_every_window(ledger: Ledger) -> None:
    """Tokens a day and a month, and one request."""
    reserve(ledger, 100, 200)
    assert numbers(ledger) == [(0, 300), (0, 300), (0, 1)]
    assert ledger.open_count() == 1
    assert ledger.reserved_total("acme") == 300


def test_settling_charges_what_it_did_cost(ledger: Ledger) -> None:
    """The rest of what was held is free again."""
    assert ledger.settle(reserve(ledger, 100, 200), Usage(90, 7))
    assert numbers(ledger) == [(97, 0), (97, 0), (1, 0)]
    assert ledger.open_count() == 0


def test_releasing_gives_everything_back(ledger: Ledger) -> None:
    """The request's own count too."""
    reservation = reserve(ledger, 100, 200)
    reservation.progress(100, 5)
    assert ledger.release(reservation)
    assert numbers(ledger) == [(0, 0), (0, 0), (0, 0)]


def test_a_reservation_ends_once(ledger: Ledger) -> None:
    """Whatever comes after the first settle or release says so and changes nothing."""
    settled, released = reserve(ledger, 1, 1), reserve(ledger, 1, 1)
    ledger.settle(settled, Usage(1, 1))
    ledger.release(released)
    before = numbers(ledger)
    for each in (settled, released):
        assert not ledger.settle(each, Usage(50, 50))
        assert not ledger.settle(each, None)
        assert not ledger.release(each)
    assert numbers(ledger) == before


def test_without_a_usage_the_last_progress_is_charged(ledger: Ledger) -> None:
    """An aborted stream costs what was seen."""
    reservation = reserve(ledger, 100, 200)
    reservation.progress(80, 1)
    reservation.progress(80, 2)
    ledger.settle(reservation, None)
    assert numbers(ledger)[0] == (82, 0)


def test_a_completion_is_lowered_to_what_is_left(ledger: Ledger) -> None:
    """The reservation says how much it got."""
    reservation = reserve(ledger, 100, 4_096)
    assert (reservation.granted_completion_tokens, reservation.clamped) == (900, True)
    assert numbers(ledger)[0] == (0, 1_000)


def test_one_that_fits_is_not_lowered(ledger: Ledger) -> None:
    """Using up the last token is not clamping."""
    reservation = reserve(ledger, 100, 900)
    assert (reservation.granted_completion_tokens, reservation.clamped) == (900, False)


def test_the_tightest_window_clamps(ledger: Ledger) -> None:
    """The month's rest counts when it is less than the day's."""
    ledger.configure({"acme": Limits(daily_tokens=1_000, monthly_tokens=400)})
    assert reserve(ledger, 100, 900).granted_completion_tokens == 300


@pytest.mark.parametrize(("prompt", "fits"), [(999, True), (1_000, False)])
def test_one_token_of_answer_must_fit(ledger: Ledger, prompt: int, fits: bool) -> None:
    """A prompt that leaves nothing for an answer is refused."""
    assert isinstance(ledger.reserve("acme", prompt, 50, NOW), Reservation) is fits


@pytest.mark.parametrize(("prompt", "fits"), [(1_000, True), (1_001, False)])
def test_a_request_without_an_answer_needs_its_prompt_alone(
    ledger: Ledger, prompt: int, fits: bool
) -> None:
    """Embeddings may use the last token."""
    assert isinstance(ledger.reserve("acme", prompt, 0, NOW), Reservation) is fits


def test_an_answer_is_not_lowered_below_what_the_caller_takes(ledger: Ledger) -> None:
    """`clamp_to` is the least that is any use, and no more than is asked for."""
    refusal = refuse(ledger, 980, 100, clamp_to=21)
    assert refusal.requested == 1_001
    assert reserve(ledger, 980, 100, clamp_to=20).clamped
    assert isinstance(refuse(ledger, 1, 1, clamp_to=500), Refusal)


def test_what_is_wanted_in_full_needs_no_more_than_that(ledger: Ledger) -> None:
    """A `clamp_to` above what is asked for does not refuse what fits."""
    assert reserve(ledger, 10, 5, clamp_to=5_000).granted_completion_tokens == 5


def test_a_refusal_names_the_window(ledger: Ledger) -> None:
    """Which limit, what is used and held of it, what it would have taken, when it ends."""
    ledger.settle(reserve(ledger, 300, 100), Usage(300, 100))
    reserve(ledger, 500, 50)
    refusal = refuse(ledger, 60, 10)
    assert refusal == Refusal(Kind.TOKENS, Period.DAY, 1_000, 400, 550, 61, int(MIDNIGHT))
    assert refusal.is_held


def test_what_running_requests_hold_is_waited_for_a_moment(ledger: Ledger) -> None:
    """They end long before the window does, and give back what they did not use."""
    reserve(ledger, 500, 450)
    assert refuse(ledger, 60, 10).retry_after_s(NOW) == 5
    assert refuse(ledger, 60, 10).retry_after_s(MIDNIGHT - 2) == 2


def test_what_is_used_up_is_waited_for_until_the_window_ends(ledger: Ledger) -> None:
    """Also where running requests hold some of it."""
    ledger.settle(reserve(ledger, 700, 250), Usage(700, 250))
    reserve(ledger, 10, 10)
    refusal = refuse(ledger, 60, 10)
    assert not refusal.is_held
    assert refusal.retry_after_s(NOW) == 12 * 3_600


def test_a_window_that_is_used_up_is_named_before_one_that_is_held(ledger: Ledger) -> None:
    """The held one may end later, but waiting a moment would be waiting in vain."""
    ledger.configure({"acme": Limits(100, 1_000, None)})
    ledger.settle(reserve(ledger, 90, 5), Usage(90, 5))
    ledger.configure({"acme": Limits(100_000, 1_000, None)})
    reserve(ledger, 500, 400)
    ledger.configure({"acme": Limits(100, 1_000, None)})
    refusal = refuse(ledger, 50, 1)
    assert (refusal.period, refusal.is_held) == (Period.DAY, False)


def test_of_several_full_windows_the_last_to_end_is_named(ledger: Ledger) -> None:
    """Waiting for the first would be waiting in vain."""
    ledger.configure({"acme": Limits(10, 10, 0)})
    now = at("2026-01-15T12:00:00")
    refusal = refuse(ledger, 20, 1, now)
    assert (refusal.kind, refusal.period) == (Kind.TOKENS, Period.MONTH)
    assert refusal.resets_at == MIDNIGHT


def test_requests_are_counted_while_they_run(ledger: Ledger) -> None:
    """Ten at once are the day's ten; one that is released makes room."""
    held = [reserve(ledger, 1, 1) for _ in range(10)]
    refusal = refuse(ledger, 1, 1)
    assert (refusal.kind, refusal.reserved, refusal.requested) == (Kind.REQUESTS, 10, 1)
    ledger.release(held[0])
    ledger.settle(reserve(ledger, 1, 1), Usage(1, 1))
    refuse(ledger, 1, 1)


def test_side_by_side_nobody_overspends(ledger: Ledger) -> None:
    """However many ask, what is granted is never more than there is."""
    ledger.configure({"acme": Limits(daily_tokens=1_000)})
    outcomes = [ledger.reserve("acme", 12, 100, NOW) for _ in range(50)]
    granted = [each for each in outcomes if isinstance(each, Reservation)]
    assert sum(12 + each.granted_completion_tokens for each in granted) == 1_000


def test_an_overrun_is_charged_and_counted(ledger: Ledger) -> None:
    """The truth is charged, also past the limit; what remains is never negative."""
    ledger.settle(reserve(ledger, 500, 500), Usage(500, 700))
    day = ledger.windows("acme", NOW)[0]
    assert (day.used, day.remaining, ledger.overruns) == (1_200, 0, 1)


def test_settling_after_midnight_charges_the_day_of_the_reservation(store: Store) -> None:
    """The new day and month are not entered by what they did not admit."""
    ledger = store.ledger
    reservation = reserve(ledger, 100, 100, MIDNIGHT - 1)
    assert numbers(ledger, MIDNIGHT) == [(0, 0), (0, 0), (0, 0)]
    assert ledger.reserved_total("acme") == 200
    ledger.settle(reservation, Usage(100, 100))
    assert numbers(ledger, MIDNIGHT + 5) == [(0, 0), (0, 0), (0, 0)]
    assert numbers(ledger, MIDNIGHT - 1) == [(200, 0), (200, 0), (1, 0)]
    assert ledger.discrepancies() == []


def test_a_new_day_within_a_month_keeps_the_months_usage(ledger: Ledger) -> None:
    """Only the day's windows begin at zero."""
    monday = at("2026-01-05T23:59:59")
    ledger.settle(reserve(ledger, 100, 100, monday), Usage(100, 100))
    assert numbers(ledger, monday + 1) == [(0, 0), (200, 0), (0, 0)]


def test_what_yesterdays_request_gives_back_of_the_month_is_there_today(ledger: Ledger) -> None:
    """At once, with nobody looking at the numbers in between."""
    ledger.configure({"acme": Limits(monthly_tokens=1_000)})
    yesterday = reserve(ledger, 900, 0, NOW - 86_400)
    reserve(ledger, 50, 0)
    ledger.settle(yesterday, Usage(100, 0))
    assert reserve(ledger, 850, 0).held == 850
    refuse(ledger, 1, 0)


@pytest.mark.parametrize("settled_before_midnight", [True, False])
def test_what_yesterdays_requests_overran_of_the_month_is_missing_today(
    ledger: Ledger, settled_before_midnight: bool
) -> None:
    """At once, with nobody looking in between, also where another one's end waits for the disk."""
    ledger.configure({"acme": Limits(monthly_tokens=1_000)})
    first, second = (reserve(ledger, 100, 0, NOW - 86_400) for _ in range(2))
    if settled_before_midnight:
        ledger.settle(first, Usage(1, 0))
    reserve(ledger, 49, 0)
    ledger.settle(first, Usage(1, 0))
    ledger.settle(second, Usage(900, 0))
    assert isinstance(ledger.reserve("acme", 51, 0, NOW), Refusal)
    assert reserve(ledger, 50, 0).held == 50


def test_a_clock_set_back_finds_its_windows_again(ledger: Ledger) -> None:
    """A step over midnight and back gives nothing away."""
    ledger.settle(reserve(ledger, 500, 400), Usage(500, 400))
    reserve(ledger, 1, 1, MIDNIGHT + 1)
    refuse(ledger, 200, 1, MIDNIGHT - 1)


def test_limits_can_change_while_requests_run(ledger: Ledger) -> None:
    """A lower one refuses, a higher one admits; what runs is not touched."""
    reservation = reserve(ledger, 100, 400)
    ledger.configure({"acme": Limits(daily_tokens=300)})
    assert refuse(ledger, 1, 1).limit == 300
    assert ledger.windows("acme", NOW)[0].remaining == 0
    ledger.settle(reservation, Usage(100, 400))
    ledger.configure({"acme": Limits(daily_tokens=600)})
    assert reserve(ledger, 50, 400).granted_completion_tokens == 50


def test_without_limits_usage_is_counted_all_the_same(ledger: Ledger) -> None:
    """An organization that nobody configured has null limits and real numbers."""
    reservation = ledger.reserve("stranger", 10**9, 10**9, NOW)
    assert isinstance(reservation, Reservation)
    ledger.settle(reservation, Usage(10, 20))
    day, month, requests = ledger.windows("stranger", NOW)
    assert day == WindowUsage(Kind.TOKENS, Period.DAY, None, 30, 0, None, int(MIDNIGHT))
    assert (month.used, month.limit, requests.used, requests.limit) == (30, None, 1, None)
    assert ledger.tightest("stranger", NOW) == (None, None)
    assert ledger.organizations() == ["acme", "stranger"]


def test_asking_counts_nobody(ledger: Ledger) -> None:
    """A name that is only asked about is not kept."""
    assert [each.used for each in ledger.windows("nobody", NOW)] == [0, 0, 0]
    assert ledger.tightest("nobody", NOW) == (None, None)
    assert ledger.organizations() == ["acme"]


def test_the_tightest_window_is_the_one_with_least_left(ledger: Ledger) -> None:
    """The day's at first, the month's when less of that is left."""
    tokens, requests = ledger.tightest("acme", NOW)
    assert tokens == (Kind.TOKENS, Period.DAY, 1_000, 0, 0, 1_000, int(MIDNIGHT))
    assert requests == (Kind.REQUESTS, Period.DAY, 10, 0, 0, 10, int(MIDNIGHT))
    ledger.configure({"acme": Limits(daily_tokens=1_000, monthly_tokens=900)})
    tokens, requests = ledger.tightest("acme", NOW)
    assert tokens is not None
    assert tokens.period is Period.MONTH
    assert requests is None


def leak(ledger: Ledger) -> Reservation:
    """Let 93 of 200 tokens be seen, and then nothing more."""
    leaked = reserve(ledger, 100, 100)
    leaked.progress(90, 3)
    assert [ledger.expire(periods=2) for _ in range(3)] == [0, 0, 1]
    return leaked


def test_what_was_leaked_is_settled_at_its_last_progress(ledger: Ledger) -> None:
    leak(ledger)
    assert ledger.open_count() == 0
    assert numbers(ledger) == [(93, 0), (93, 0), (1, 0)]


def test_what_moves_between_two_searches_is_not_leaked(ledger: Ledger) -> None:
    alive = reserve(ledger, 100, 100)
    for completion in range(10):
        assert ledger.expire(periods=1) == 0
        alive.progress(90, completion)


def test_what_is_touched_between_two_searches_is_not_leaked(ledger: Ledger) -> None:
    """A prompt that is read for hours brings no token, and an engine may tell usage at the end."""
    alive = reserve(ledger, 100, 100)
    for _ in range(10):
        assert ledger.expire(periods=1) == 0
        alive.touch()


def test_what_seemed_leaked_is_charged_as_what_it_did_cost(ledger: Ledger) -> None:
    assert ledger.settle(leak(ledger), Usage(90, 70))
    assert numbers(ledger) == [(160, 0), (160, 0), (1, 0)]


def test_what_seemed_leaked_is_no_overrun_twice(ledger: Ledger) -> None:
    reservation = reserve(ledger, 1, 1)
    reservation.progress(5, 5)
    ledger.expire(0)
    ledger.settle(reservation, Usage(5, 6))
    assert ledger.overruns == 1


def test_what_seemed_leaked_can_be_released(ledger: Ledger) -> None:
    assert ledger.release(leak(ledger))
    assert numbers(ledger) == [(0, 0), (0, 0), (0, 0)]


def test_what_seemed_leaked_is_ended_once(ledger: Ledger) -> None:
    leaked = leak(ledger)
    ledger.settle(leaked, Usage(90, 70))
    assert not ledger.settle(leaked, Usage(90, 70))
    assert not ledger.release(leaked)
    assert numbers(ledger)[0] == (160, 0)


async def test_the_life_of_a_ledger(store: Store) -> None:
    """It can be started and closed, and is usable in between."""
    await store.ledger.start(NOW)
    ledger = store.ledger
    ledger.settle(reserve(ledger, 1, 1), Usage(1, 1))
    await ledger.close(NOW)
    assert numbers(ledger) == [(2, 0), (2, 0), (1, 0)]
