"""What engines and requests tell of a service, and what that changes for the next call."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from router.config.settings import EjectionSettings
from router.errors import NoHealthyBackend, Overloaded
from router.fleet import fleet as fleet_module
from router.fleet.fleet import Fleet
from router.fleet.load import EngineLoad
from router.fleet.service import Health, Service
from router.model import ServiceState
from router.routing import POLICIES
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, card, named, spec, state_of

BUSY = EngineLoad(running=1, generated_tokens=10, prompt_tokens=5)
MOVED = EngineLoad(running=1, generated_tokens=11, prompt_tokens=5)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The monotonic clock of fleet and services; it stands until it is moved."""
    clock = Clock()
    monkeypatch.setattr(fleet_module, "monotonic", clock)
    monkeypatch.setattr("router.fleet.service.monotonic", clock)
    monkeypatch.setattr("unit.fleet.fleet_fakes.monotonic", clock)
    monkeypatch.setattr(fleet_module.random, "uniform", lambda _low, _high: 0.0)
    return clock


def pair(**more) -> tuple[Fleet, Service, Service]:
    fleet = build(spec("a", **more), spec("b", **more))
    return fleet, named(fleet, "a"), named(fleet, "b")


def takers(fleet: Fleet, times: int = 4) -> set[str]:
    """Who gets calls; each is given back with nothing told."""
    names = set()
    for _ in range(times):
        lease = fleet.take("m")
        names.add(lease.service.name)
        lease.release()
    return names


def fail(fleet: Fleet, service: Service, times: int = 3, wait_s: float | None = None) -> None:
    for _ in range(times):
        fleet.note_failure(service, "broke", wait_s)


# -- what engines tell -------------------------------------------------------------------------


def test_work_without_a_token_for_long_is_hung(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 31
    fleet.set_load(a, BUSY, 30)
    assert state_of(a) == "unhealthy"
    assert a.last_error == "hung: 1 running, no token for 31 s"
    assert takers(fleet) == {"b"}


def test_work_without_a_token_for_less_is_not_hung(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 30
    fleet.set_load(a, BUSY, 30)
    assert state_of(a) == "healthy"


def test_an_engine_whose_bytes_arrive_is_not_hung_whatever_its_counters_say(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 31
    a.heard = clock.now - 1
    fleet.set_load(a, BUSY, 30)
    assert not a.hung


def test_an_engine_without_work_is_never_hung(clock):
    fleet, a, _ = pair()
    for _ in range(3):
        fleet.set_load(a, EngineLoad(generated_tokens=10), 30)
        clock.now += 1000
    assert state_of(a) == "healthy"


def test_a_hung_engine_that_makes_a_token_again_is_healthy_and_its_error_is_over(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 31
    fleet.set_load(a, BUSY, 30)
    fleet.set_load(a, MOVED, 30)
    assert (state_of(a), a.last_error) == ("healthy", None)
    assert takers(fleet) == {"a", "b"}


def test_a_good_probe_does_not_make_a_hung_engine_healthy(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 31
    fleet.set_load(a, BUSY, 30)
    fleet.set_health(a, HEALTHY)
    assert takers(fleet) == {"b"}


def test_an_engine_asleep_is_left_alone_until_it_is_awake(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, EngineLoad(awake=False), 30)
    assert state_of(a) == "sleeping"
    assert takers(fleet) == {"b"}
    fleet.set_load(a, EngineLoad(), 30)
    assert takers(fleet) == {"a", "b"}


def made_hung(fleet: Fleet, service: Service, clock: Clock) -> None:
    fleet.set_load(service, BUSY, 30)
    clock.now += 31
    fleet.set_load(service, BUSY, 30)


def made_asleep(fleet: Fleet, service: Service, clock: Clock) -> None:
    fleet.set_load(service, EngineLoad(awake=False), 30)


VERDICTS = pytest.mark.parametrize("made", [made_hung, made_asleep])


@VERDICTS
def test_a_verdict_is_over_once_the_engine_tells_nothing_of_itself_any_more(clock, made):
    fleet, a, _ = pair()
    made(fleet, a, clock)
    fleet.set_load(a, None, 30)
    assert (state_of(a), a.last_error, a.load) == ("healthy", None, None)
    assert takers(fleet) == {"a", "b"}


@VERDICTS
def test_an_engine_that_is_back_is_not_judged_by_what_was_read_before(clock, made):
    fleet, a, _ = pair()
    made(fleet, a, clock)
    fleet.set_health(a, UNHEALTHY)
    fleet.set_health(a, HEALTHY)
    assert (state_of(a), a.last_error, a.load) == ("healthy", None, None)
    assert takers(fleet) == {"a", "b"}


def test_an_engine_that_is_back_has_its_whole_time_before_it_is_hung(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    fleet.set_health(a, UNHEALTHY)
    fleet.set_health(a, HEALTHY)
    clock.now += 31
    fleet.set_load(a, BUSY, 30)
    assert state_of(a) == "healthy"


def test_who_listens_is_told_once_when_a_service_is_no_longer_usable(clock):
    fleet, a, b = pair()
    told: list[Service] = []
    fleet.on_down(told.append)
    fleet.set_load(a, EngineLoad(awake=False), 30)
    fleet.set_health(a, UNHEALTHY)
    fleet.set_health(b, HEALTHY)
    assert told == [a]


# -- what requests tell ------------------------------------------------------------------------


def test_failures_in_a_row_eject(clock):
    fleet, a, _ = pair()
    fail(fleet, a)
    assert (state_of(a), a.last_error) == ("ejected", "broke")
    assert takers(fleet) == {"b"}


def test_a_success_in_between_starts_anew(clock):
    fleet, a, _ = pair()
    fail(fleet, a, 2)
    fleet.note_success(a)
    fail(fleet, a, 2)
    assert takers(fleet) == {"a", "b"}


def test_an_ejected_service_is_tried_again_by_one_request_once_its_time_is_over(clock):
    fleet, a, _ = pair(max_concurrency=9)
    fail(fleet, a)
    clock.now += 5
    names = [fleet.take("m").service.name for _ in range(6)]
    assert names.count("a") == 1


def test_the_trials_success_brings_it_back(clock):
    fleet, a, b = pair()
    fail(fleet, a)
    clock.now += 5
    trial = fleet.take("m", [b])
    trial.succeeded()
    trial.release()
    assert state_of(a) == "healthy"
    assert takers(fleet) == {"a", "b"}


def test_a_trial_that_told_nothing_lets_the_next_one_through(clock):
    fleet, a, b = pair()
    fail(fleet, a)
    clock.now += 5
    fleet.take("m", [b]).release()
    assert fleet.take("m", [b]).service is a


def test_an_older_request_that_ends_does_not_let_a_second_trial_through(clock):
    fleet, a, b = pair()
    older = fleet.take("m", [b])
    fail(fleet, a)
    clock.now += 5
    assert fleet.take("m", [b]).service is a
    older.release()
    assert {fleet.take("m").service.name for _ in range(4)} == {"b"}


def test_nor_does_one_that_was_taken_after_a_first_failure(clock):
    fleet, a, b = pair()
    fail(fleet, a, 1)
    older = fleet.take("m", [b])
    fail(fleet, a, 2)
    clock.now += 5
    assert fleet.take("m", [b]).service is a
    older.release()
    assert {fleet.take("m").service.name for _ in range(4)} == {"b"}


def test_the_end_of_an_ejection_is_seen_by_the_review(clock):
    fleet, a, _ = pair()
    fail(fleet, a)
    assert a.shown == "ejected"
    clock.now += 5
    fleet.review(clock.now)
    assert a.shown == "healthy"


def test_the_last_one_standing_is_tried_although_it_is_ejected(clock):
    fleet, a, b = pair()
    fail(fleet, a)
    fail(fleet, b)
    assert takers(fleet) == {"a", "b"}


def test_the_last_one_standing_keeps_to_its_limit(clock):
    fleet, a, b = pair(max_concurrency=1)
    fail(fleet, a)
    fail(fleet, b)
    fleet.take("m")
    fleet.take("m")
    with pytest.raises(Overloaded):
        fleet.take("m")


def test_a_full_one_is_waited_for_rather_than_an_ejected_one_tried(clock):
    fleet, a, b = pair(max_concurrency=1)
    fail(fleet, a)
    fleet.take("m", [a])
    with pytest.raises(Overloaded):
        fleet.take("m")
    assert b.in_flight == 1


def test_an_engines_retry_after_is_kept_to(clock):
    fleet, a, _ = pair()
    fail(fleet, a, 1, wait_s=20)
    assert takers(fleet) == {"b"}
    clock.now += 20
    assert takers(fleet) == {"a", "b"}


def test_a_down_service_that_is_ejected_too_is_shown_as_down(clock):
    fleet, a, _ = pair()
    fail(fleet, a)
    fleet.set_health(a, UNHEALTHY)
    assert state_of(a) == "unhealthy"


def test_new_settings_count_from_the_next_failure(clock):
    fleet, a, _ = pair()
    fleet.configure(
        policy=POLICIES["round_robin"],
        aliases={},
        ejection=EjectionSettings(consecutive_failures=1, base_s=60),
    )
    fail(fleet, a, 1)
    clock.now += 59
    assert takers(fleet) == {"b"}


def test_a_lease_tells_once(clock):
    """What began well and broke later is no failure of the next: the first word counts."""
    fleet, a, b = pair()
    lease = fleet.take("m", [b])
    lease.succeeded()
    for _ in range(3):
        lease.failed("late")
    assert a.last_error is None
    assert state_of(a) == "healthy"


def test_a_lease_that_was_given_back_tells_nothing(clock):
    fleet, a, b = pair()
    lease = fleet.take("m", [b])
    lease.release()
    lease.failed("late")
    assert a.last_error is None


def test_all_that_are_left_were_tried_is_told_as_no_healthy_backend(clock):
    fleet, a, b = pair()
    with pytest.raises(NoHealthyBackend):
        fleet.take("m", [a, b])
    assert (a.in_flight, b.in_flight) == (0, 0)


# -- the context length ------------------------------------------------------------------------


def lengths(**told: int | None) -> Fleet:
    fleet = build(*(spec(name) for name in told))
    for name, length in told.items():
        if length != 0:
            fleet.set_health(named(fleet, name), HEALTHY, [card("m", max_model_len=length)])
    return fleet


def test_the_longest_context_of_the_models_services_is_told():
    assert lengths(a=512, b=32768).contexts["m"] == 32768


def test_a_model_of_which_nobody_told_has_no_context_length():
    assert lengths(a=None).contexts["m"] is None
    assert lengths(a=0).contexts["m"] is None
    assert lengths(a=512).contexts["other"] is None


def test_where_one_has_not_told_no_length_is_a_bound():
    assert lengths(a=512, b=None).contexts["m"] is None


def test_a_service_that_tells_later_changes_the_length():
    fleet = lengths(a=512, b=None)
    fleet.contexts["m"]
    fleet.set_health(named(fleet, "b"), HEALTHY, [card("m", max_model_len=1024)])
    assert fleet.contexts["m"] == 1024


def test_a_service_that_comes_up_without_telling_unbounds_the_length():
    fleet = lengths(a=512, b=None)
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    assert fleet.contexts["m"] == 512
    fleet.set_health(named(fleet, "b"), HEALTHY)
    assert fleet.contexts["m"] is None


def test_a_service_that_is_gone_counts_no_more_for_the_length():
    fleet = lengths(a=512, b=1024)
    fleet.contexts["m"]
    fleet.publish("yaml", [spec("a")])
    assert fleet.contexts["m"] == 512


# -- how long it takes to leave ----------------------------------------------------------------


def left_after(service: Service) -> list[float]:
    """The time to leave, once for each time it left."""
    leave = service.cells.leave
    return [leave.total] * sum(leave.counts)


def test_the_time_to_leave_begins_with_the_first_request_that_failed(clock):
    fleet, a, _ = pair()
    fail(fleet, a, 1)
    clock.now += 4
    fail(fleet, a, 2)
    assert left_after(a) == [4.0]


def test_it_begins_with_the_first_probe_that_failed(clock):
    fleet, a, _ = pair()
    for failures in (1, 2):
        fleet.set_health(a, Health(ServiceState.HEALTHY, failures=failures, ever_healthy=True))
        clock.now += 30
    fleet.set_health(a, UNHEALTHY)
    assert left_after(a) == [60.0]


def test_a_probe_that_succeeds_ends_what_failed_before(clock):
    fleet, a, _ = pair()
    fleet.set_health(a, Health(ServiceState.HEALTHY, failures=1, ever_healthy=True))
    clock.now += 30
    fleet.set_health(a, HEALTHY)
    clock.now += 30
    fleet.set_health(a, UNHEALTHY)
    assert left_after(a) == [0.0]


def test_for_one_that_hangs_it_begins_with_its_last_sign_of_life(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, BUSY, 30)
    clock.now += 31
    fleet.set_load(a, BUSY, 30)
    assert left_after(a) == [31.0]


def test_to_sleep_is_no_fault(clock):
    fleet, a, _ = pair()
    fleet.set_load(a, EngineLoad(awake=False), 30)
    assert left_after(a) == []


# -- models that differ ------------------------------------------------------------------------

DIFFERS = replace(HEALTHY, mismatch="does not serve m; it lists: n")


def test_models_that_differ_are_told_once_and_are_the_last_error():
    fleet = build(spec("a"), healthy=False)
    service = named(fleet, "a")
    with capture_logs() as lines:
        for health in (DIFFERS, DIFFERS, replace(UNHEALTHY, mismatch=DIFFERS.mismatch), DIFFERS):
            fleet.set_health(service, health)
    assert sum(line["event"] == "models_differ" for line in lines) == 1
    assert service.is_healthy
    assert service.last_error == DIFFERS.mismatch


def test_models_that_fit_again_are_no_error():
    fleet = build(spec("a"))
    service = named(fleet, "a")
    fleet.set_health(service, DIFFERS)
    fleet.set_health(service, HEALTHY)
    assert service.last_error is None
