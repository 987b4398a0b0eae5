"""Leases: who gets which slot, and that every slot comes back exactly once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.settings import EjectionSettings
from router.errors import ModelLoading, NoHealthyBackend, Overloaded
from router.fleet.service import Health
from router.model import ServiceState
from router.routing import POLICIES
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, named, spec


def retry_after(error) -> int:
    return int(dict(error.headers())["Retry-After"])


def test_a_lease_takes_a_slot_and_gives_it_back():
    fleet = build(spec("a"))
    lease = fleet.take("m")
    assert lease.service.in_flight == 1
    lease.release()
    assert lease.service.in_flight == 0


def test_a_second_release_does_nothing():
    fleet = build(spec("a"))
    lease, other = fleet.take("m"), fleet.take("m")
    lease.release()
    lease.release()
    assert other.service.in_flight == 1


def test_a_second_release_of_a_drained_service_does_nothing():
    fleet = build(spec("a"))
    lease = fleet.take("m")
    fleet.publish("yaml", [])
    lease.release()
    lease.release()
    assert fleet.services == ()


def test_calls_take_turns():
    fleet = build(spec("a"), spec("b"), spec("c"))
    assert [fleet.take("m").service.name for _ in range(6)] == list("abcabc")


def test_calls_of_one_model_do_not_shift_the_turns_of_another():
    fleet = build(spec("a", ("m", "n")), spec("b", ("m", "n")))
    names = [(fleet.take("m").service.name, fleet.take("n").service.name) for _ in range(2)]
    assert names == [("a", "a"), ("b", "b")]


def test_weights_are_respected():
    fleet = build(spec("a", weight=3), spec("b"))
    assert Counter(fleet.take("m").service.name for _ in range(40)) == {"a": 30, "b": 10}


def test_a_new_policy_counts_from_the_next_call():
    fleet = build(spec("a", weight=9), spec("b"))
    fleet.configure(policy=POLICIES["least_load"], aliases={}, ejection=EjectionSettings())
    named(fleet, "a").in_flight = 100
    assert fleet.take("m").service.name == "b"


def test_who_was_tried_is_not_taken_again():
    fleet = build(spec("a"), spec("b"))
    tried = fleet.take("m").service
    assert {fleet.take("m", exclude=[tried]).service.name for _ in range(4)} == {"b"}


def test_a_full_service_is_passed_over():
    fleet = build(spec("a", max_concurrency=1), spec("b"))
    assert [fleet.take("m").service.name for _ in range(4)] == ["a", "b", "b", "b"]


def test_a_slot_that_came_back_is_given_out_again():
    fleet = build(spec("a", max_concurrency=1))
    fleet.take("m").release()
    assert fleet.take("m").service.in_flight == 1


def test_all_full_is_overloaded():
    fleet = build(spec("a", max_concurrency=1))
    fleet.take("m")
    with pytest.raises(Overloaded) as caught:
        fleet.take("m")
    assert retry_after(caught.value) == 1


def test_one_full_and_one_down_is_overloaded():
    fleet = build(spec("a", max_concurrency=1), spec("b"))
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    fleet.take("m")
    with pytest.raises(Overloaded):
        fleet.take("m")


def test_all_down_is_no_healthy_backend():
    fleet = build(spec("a"))
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    with pytest.raises(NoHealthyBackend) as caught:
        fleet.take("m")
    assert (caught.value.status, retry_after(caught.value)) == (503, 10)


def test_all_down_but_one_that_starts_is_loading():
    fleet = build(spec("a"), spec("b"), healthy=False)
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    with pytest.raises(ModelLoading) as caught:
        fleet.take("m")
    assert retry_after(caught.value) == 5


def test_the_only_one_tried_is_no_healthy_backend():
    fleet = build(spec("a"))
    with pytest.raises(NoHealthyBackend):
        fleet.take("m", exclude=[named(fleet, "a")])


@pytest.mark.parametrize("state", [s for s in ServiceState if s is not ServiceState.HEALTHY])
def test_only_a_healthy_service_is_taken(state):
    fleet = build(spec("a"))
    fleet.set_health(named(fleet, "a"), Health(state))
    with pytest.raises((NoHealthyBackend, ModelLoading)):
        fleet.take("m")


def test_a_service_that_drains_is_not_taken():
    fleet = build(spec("a"), spec("b"))
    fleet.take("m", exclude=[named(fleet, "b")])
    fleet.publish("yaml", [spec("b")])
    assert {fleet.take("m").service.name for _ in range(3)} == {"b"}


def test_a_refused_call_takes_no_slot():
    fleet = build(spec("a", max_concurrency=1))
    lease = fleet.take("m")
    with pytest.raises(Overloaded):
        fleet.take("m")
    assert lease.service.in_flight == 1


STEPS = st.lists(
    st.sampled_from(["take", "release", "again", "drop", "bring", "replace"]), max_size=40
)


@given(STEPS)
def test_whatever_happens_slots_out_equal_leases_held(steps):
    fleet = build(spec("a", max_concurrency=3), spec("b"))
    held, done, version = [], [], 0
    for step in steps:
        if step == "take":
            try:
                held.append(fleet.take("m"))
            except (Overloaded, NoHealthyBackend):
                assert len(held) >= 0
        elif step == "release" and held:
            done.append(held.pop())
            done[-1].release()
        elif step == "again" and done:
            done[-1].release()
        elif step == "drop":
            fleet.publish("yaml", [spec("a", max_concurrency=3, url=f"http://a:{version}")])
        elif step in {"bring", "replace"}:
            version += step == "replace"
            a = spec("a", max_concurrency=3, url=f"http://a:{version}")
            fleet.publish("yaml", [a, spec("b")])
        for service in fleet.services:
            if not service.removed:
                fleet.set_health(service, HEALTHY)
        leased = Counter(lease.service for lease in held)
        assert {s: s.in_flight for s in fleet.services if s.in_flight} == leased
    for lease in held:
        lease.release()
    assert all(service.in_flight == 0 and not service.removed for service in fleet.services)


# -- without a slot --------------------------------------------------------------------------------


def test_the_least_busy_is_asked_first_and_who_had_failed_last():
    fleet = build(spec("a"), spec("b"), spec("c"))
    for name, running in (("a", 2), ("b", 1), ("c", 0)):
        named(fleet, name).in_flight = running
    for _ in range(3):
        fleet.note_failure(named(fleet, "c"), "broke", None)
    assert [each.name for each in fleet.able("m")] == ["b", "a", "c"]


def test_who_is_full_can_be_asked_and_who_is_not_well_cannot():
    fleet = build(spec("a", max_concurrency=1), spec("b"))
    fleet.take("m").service.in_flight = 1
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    assert [each.name for each in fleet.able("m")] == ["a"]
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    with pytest.raises(NoHealthyBackend):
        fleet.able("m")
