"""The breaker's decisions: when a service is put aside, for how long, and how it comes back."""

from __future__ import annotations

from functools import reduce

from hypothesis import example, given
from hypothesis import strategies as st

from router.fleet.breaker import (
    CLOSED,
    Breaker,
    after_failure,
    after_nothing,
    after_success,
    after_take,
    paused,
)

BASE_S, MAX_S, NOW = 5.0, 300.0, 1000.0


def fail(breaker: Breaker, now: float = NOW, *, threshold: int = 3, jitter: float = 0.0) -> Breaker:
    return after_failure(
        breaker, now, threshold=threshold, base_s=BASE_S, max_s=MAX_S, jitter=jitter
    )


def failed(times: int, breaker: Breaker = CLOSED, now: float = NOW) -> Breaker:
    return reduce(lambda before, _: fail(before, now), range(times), breaker)


def ejected(times: int) -> Breaker:
    """Ejected so many times in a row: after the first, each time by the trial's failure."""
    breaker = failed(3)
    for _ in range(times - 1):
        breaker = fail(after_take(breaker), breaker.until)
    return breaker


def test_fewer_failures_than_the_threshold_leave_it_closed():
    assert failed(2).is_closed
    assert failed(2).admits(NOW)


def test_as_many_failures_as_the_threshold_eject():
    breaker = failed(3)
    assert not breaker.is_closed
    assert breaker.until == NOW + BASE_S


def test_a_threshold_of_one_ejects_at_the_first_failure():
    assert fail(CLOSED, threshold=1).until == NOW + BASE_S


def test_a_success_between_failures_starts_the_count_anew():
    assert failed(2, after_success(failed(2))).is_closed


def test_an_end_that_tells_nothing_between_failures_does_not_reset_the_count():
    assert not fail(after_nothing(failed(2))).is_closed


def test_an_ejected_service_admits_nothing_until_its_time_is_over():
    breaker = failed(3)
    assert not breaker.admits(breaker.until - 0.001)
    assert breaker.admits(breaker.until)


def test_one_trial_passes_at_a_time():
    breaker = after_take(failed(3))
    assert not breaker.admits(breaker.until + 100)


def test_the_trials_success_closes_it_as_if_nothing_had_been():
    assert after_success(after_take(ejected(4))) == CLOSED


def test_a_trial_that_told_nothing_is_free_again():
    breaker = after_nothing(after_take(failed(3)))
    assert breaker.admits(breaker.until)
    assert breaker.ejections == 1


def test_a_trials_failure_ejects_for_twice_as_long():
    before = failed(3)
    after = fail(after_take(before), before.until)
    assert after.until == before.until + 2 * BASE_S
    assert not after.trial


def test_each_ejection_in_a_row_doubles_the_time_out_up_to_the_longest():
    outs = [5, 10, 20, 40, 80, 160, 300, 300]
    for times, out_s in enumerate(outs, start=1):
        last = ejected(times - 1).until if times > 1 else NOW
        assert ejected(times).until == last + out_s


def test_no_number_of_ejections_overflows():
    many = Breaker(failures=10_000, ejections=10_000, until=NOW, trial=True)
    assert fail(many).until == NOW + MAX_S


def test_a_failure_that_was_under_way_when_it_was_ejected_does_not_prolong_the_ejection():
    breaker = failed(3)
    assert fail(breaker, NOW + 1).until == breaker.until
    assert fail(breaker, NOW + 1).ejections == 1


def test_the_first_of_the_failures_in_a_row_is_remembered():
    breaker = fail(fail(CLOSED, 10.0), 20.0)
    assert breaker.since == 10.0
    assert fail(after_success(breaker), 30.0).since == 30.0


def test_taking_a_closed_one_changes_nothing():
    assert after_take(CLOSED) is CLOSED


@given(jitter=st.floats(-1, 1), ejections=st.integers(0, 40))
@example(jitter=1.0, ejections=20)
def test_no_ejection_is_longer_than_the_longest(jitter, ejections):
    breaker = fail(Breaker(failures=9, ejections=ejections, until=NOW, trial=True), jitter=jitter)
    assert breaker.until <= NOW + MAX_S


@given(jitter=st.floats(-1, 1))
def test_jitter_moves_the_end_by_a_tenth_at_most(jitter):
    breaker = fail(Breaker(failures=2), jitter=jitter)
    assert BASE_S * 0.9 - 1e-6 <= breaker.until - NOW <= BASE_S * 1.1 + 1e-6


def test_a_pause_asked_for_by_the_engine_holds_requests_back():
    breaker = paused(failed(1), NOW, 7)
    assert not breaker.admits(NOW + 6.9)
    assert breaker.admits(NOW + 7)


def test_a_pause_is_believed_up_to_a_minute():
    assert paused(CLOSED, NOW, 86_400).until == NOW + 60


def test_a_pause_does_not_shorten_an_ejection():
    breaker = ejected(5)
    assert paused(breaker, NOW, 1).until == breaker.until


def test_a_pause_keeps_the_count_of_failures_and_ejections():
    breaker = paused(ejected(2), NOW, 1)
    assert (breaker.failures, breaker.ejections) == (ejected(2).failures, 2)


def test_after_a_pause_one_request_is_let_through_on_trial():
    breaker = after_take(paused(CLOSED, NOW, 1))
    assert not breaker.admits(NOW + 2)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "success", "nothing", "failure", "pause"]),
        st.floats(0, 20),
        st.floats(-1, 1),
    ),
    max_size=40,
)


@given(EVENTS)
def test_whatever_happens_a_success_ends_it_and_time_lets_a_trial_through(events):
    """No sequence leaves a service out for good: none is put aside for over 1.1 times the most."""
    breaker, now = CLOSED, NOW
    for event, passed_s, jitter in events:
        now += passed_s
        if event == "take" and breaker.admits(now):
            breaker = after_take(breaker)
        elif event == "success":
            breaker = after_success(breaker)
        elif event == "nothing":
            breaker = after_nothing(breaker)
        elif event == "failure":
            breaker = fail(breaker, now, jitter=jitter)
        elif event == "pause":
            breaker = paused(breaker, now, passed_s)
        assert breaker.until - now <= MAX_S * 1.1
        assert after_nothing(breaker).admits(now + MAX_S * 1.1)
        assert breaker.failures >= breaker.ejections
    assert after_success(breaker).admits(now)
