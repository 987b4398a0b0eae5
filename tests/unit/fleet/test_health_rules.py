"""What a probe means for a service's state, as tables."""

from __future__ import annotations

import pytest

from router.fleet.health import (
    Absence,
    Observation,
    least_delay,
    next_absence,
    next_delay,
    next_health,
)
from router.fleet.service import Health
from router.model import ServiceState

OK = Observation(True)
STARTING = Observation(False, starting=True, error="cannot connect")
BUSY = Observation(False, busy=True, error="late")
BAD = Observation(False, error="answered 500")
WRONG = Observation(False, misconfigured=True, error="TLS fails")
SEEN = {"ok": OK, "starting": STARTING, "busy": BUSY, "bad": BAD, "wrong": WRONG}


def after(*seen: str, unhealthy_after: int = 3, healthy_after: int = 1) -> Health:
    """The health of a new service after these probes."""
    health = Health()
    for name in seen:
        health = next_health(
            health, SEEN[name], unhealthy_after=unhealthy_after, healthy_after=healthy_after
        )
    return health


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ([], "loading"),
        (["ok"], "healthy"),
        (["starting"] * 9, "loading"),
        (["starting"] * 9 + ["ok"], "healthy"),
        (["bad"] * 2, "loading"),
        (["bad"] * 3, "unhealthy"),
        (["bad"] * 3 + ["starting"], "loading"),
        (["bad"] * 3 + ["ok"], "healthy"),
        (["ok", "bad", "bad"], "healthy"),
        (["ok", "bad", "bad", "bad"], "unhealthy"),
        (["ok", "bad", "bad", "ok", "bad", "bad"], "healthy"),
        (["ok", "starting", "starting"], "healthy"),
        (["ok", "starting", "bad", "starting"], "unhealthy"),
        (["ok", "bad", "bad", "bad", "ok"], "healthy"),
        (["ok", "bad", "bad", "bad", "starting"], "unhealthy"),
        (["ok"] + ["busy"] * 9, "healthy"),
        (["ok", "bad", "busy", "bad", "busy", "bad"], "unhealthy"),
        (["ok", "bad", "bad", "bad", "busy"], "unhealthy"),
        (["busy"] * 9, "loading"),
        (["wrong"], "unhealthy"),
        (["starting", "wrong"], "unhealthy"),
        (["wrong", "ok"], "healthy"),
        (["ok", "wrong"], "healthy"),
        (["ok", "wrong", "wrong", "wrong"], "unhealthy"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_the_state_follows_from_the_probes(seen, state):
    assert after(*seen).state == state


def test_the_first_success_is_enough_whatever_is_asked_of_later_ones():
    assert after("ok", healthy_after=3).state is ServiceState.HEALTHY


def test_a_fallen_service_needs_healthy_after_successes_in_a_row():
    fallen = ["ok", "bad"]
    told = [after(*fallen, *more, unhealthy_after=1, healthy_after=3).state for more in (
        ["ok", "ok"], ["ok", "ok", "bad", "ok", "ok"], ["ok", "ok", "ok"])]  # fmt: skip
    assert [str(state) for state in told] == ["unhealthy", "unhealthy", "healthy"]


def test_the_latest_error_is_told_until_a_success():
    assert after("ok", "bad").last_error == "answered 500"
    assert after("starting").last_error == "cannot connect"
    assert after("bad", "ok").last_error is None


@pytest.mark.parametrize(
    ("health", "delay"),
    [
        (Health(), 2.0),
        (Health(failures=2), 2.0),
        (Health(ServiceState.HEALTHY), 30.0),
        (Health(ServiceState.HEALTHY, failures=1), 1.0),
        (Health(ServiceState.UNHEALTHY, successes=1), 1.0),
    ],
)
def test_probes_come_sooner_while_the_state_is_not_settled(health, delay):
    assert next_delay(health, interval_s=30, unhealthy_after=3) == delay


def test_one_that_fell_is_asked_soon_and_then_ever_later_up_to_the_interval():
    fallen = [Health(ServiceState.UNHEALTHY, failures) for failures in (3, 4, 5, 6, 7, 8, 5000)]
    delays = [next_delay(health, interval_s=30, unhealthy_after=3) for health in fallen]
    assert delays == [1, 2, 4, 8, 16, 30, 30]


def test_one_that_was_wrong_from_the_start_is_asked_soon_too():
    wrong = Health(ServiceState.UNHEALTHY, failures=1)
    assert next_delay(wrong, interval_s=30, unhealthy_after=3) == 1


@pytest.mark.parametrize(
    "health",
    [
        Health(),
        Health(ServiceState.HEALTHY, failures=1),
        Health(ServiceState.UNHEALTHY, failures=3),
    ],
)
def test_no_probe_comes_later_than_the_interval(health):
    assert next_delay(health, interval_s=0.5, unhealthy_after=3) == 0.5


@pytest.mark.parametrize(("interval_s", "least_s"), [(30, 1.0), (0.5, 0.5)])
def test_probes_keep_a_second_between_them_or_the_interval(interval_s, least_s):
    assert least_delay(interval_s) == least_s


def absence_after(*seen: tuple[float, Observation]) -> Absence:
    absence = Absence()
    for now, what in seen:
        absence = next_absence(absence, what, now)
    return absence


def test_an_absence_is_long_after_half_a_minute():
    assert not absence_after((100, STARTING), (129, STARTING)).is_long
    assert absence_after((100, STARTING), (130, STARTING)).is_long


@pytest.mark.parametrize("between", [OK, BAD])
def test_an_absence_begins_anew_after_anything_else(between):
    assert not absence_after((100, STARTING), (129, between), (131, STARTING)).is_long


def test_a_mismatch_is_known_until_another_list_is_seen():
    differs = Observation(True, mismatch="does not serve x")
    health = Health()
    for seen in (differs, BAD, STARTING, BUSY):
        health = next_health(health, seen, unhealthy_after=3, healthy_after=1)
        assert health.mismatch == "does not serve x"
    assert next_health(health, OK, unhealthy_after=3, healthy_after=1).mismatch is None
