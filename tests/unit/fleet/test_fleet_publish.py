"""What a new list of services changes, and what it leaves alone."""

from __future__ import annotations

import pytest

from router.api.gauges import fleet_gauges
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, card, named, spec, state_of


def states(fleet) -> dict[str, str]:
    return {service.name: state_of(service) for service in fleet.services}


def test_what_is_new_starts_as_loading():
    assert states(build(spec("a"), healthy=False)) == {"a": "loading"}


def test_what_stays_keeps_its_health_its_leases_and_its_numbers():
    fleet = build(spec("a"))
    before = named(fleet, "a")
    fleet.take("m")
    fleet.publish("yaml", [spec("a"), spec("b")])
    assert named(fleet, "a") is before
    assert before.in_flight == 1
    assert states(fleet) == {"a": "healthy", "b": "loading"}


def test_what_is_gone_and_idle_is_gone_at_once():
    fleet = build(spec("a"), spec("b"))
    fleet.publish("yaml", [spec("b")])
    assert states(fleet) == {"b": "healthy"}


def test_what_is_gone_and_busy_drains_until_its_last_lease_is_back():
    fleet = build(spec("a"))
    leases = [fleet.take("m"), fleet.take("m")]
    fleet.publish("yaml", [])
    assert states(fleet) == {"a": "draining"}
    leases[0].release()
    assert states(fleet) == {"a": "draining"}
    leases[1].release()
    assert states(fleet) == {}


@pytest.mark.parametrize(
    "change", [{"url": "http://other:1"}, {"api_key": "new"}, {"models": ("m", "n")}]
)
def test_another_address_key_or_set_of_models_starts_anew(change):
    fleet = build(spec("a"))
    before = named(fleet, "a")
    fleet.publish("yaml", [spec("a", **change)])
    assert named(fleet, "a") is not before
    assert before.removed
    assert states(fleet) == {"a": "loading"}


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 5}, {"max_concurrency": 9}, {"gpu": "1"}, {"group": "g"}, {"health_path": "/h"},
    ],
)  # fmt: skip
def test_any_other_change_is_taken_over_in_place(change):
    fleet = build(spec("a"))
    before = named(fleet, "a")
    fleet.publish("yaml", [spec("a", **change)])
    ((name, value),) = change.items()
    assert named(fleet, "a") is before
    assert before.is_healthy
    assert getattr(before.spec, name) == value


def test_a_new_weight_is_what_the_policies_see():
    fleet = build(spec("a"))
    fleet.publish("yaml", [spec("a", weight=7)])
    assert named(fleet, "a").weight == 7


def test_a_new_limit_counts_for_the_leases_that_are_out():
    fleet = build(spec("a"))
    fleet.take("m")
    fleet.publish("yaml", [spec("a", max_concurrency=1)])
    assert named(fleet, "a").is_full


def test_learnt_models_survive_a_change_in_place():
    fleet = build(spec("a", None), healthy=False)
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("learnt")])
    fleet.publish("yaml", [spec("a", None, weight=2)])
    assert list(fleet.catalog.members) == ["learnt"]


def test_a_replaced_service_drains_beside_its_successor():
    fleet = build(spec("a"))
    lease = fleet.take("m")
    fleet.publish("yaml", [spec("a", url="http://other:1")])
    fleet.set_health(named(fleet, "a"), HEALTHY)
    assert sorted(state_of(service) for service in fleet.services) == ["draining", "healthy"]
    assert fleet.take("m").service is named(fleet, "a")
    lease.release()
    assert states(fleet) == {"a": "healthy"}


def test_a_replaced_service_that_drains_gives_no_sample_twice():
    fleet = build(spec("a"))
    fleet._metrics.add_source(lambda: fleet_gauges(fleet))
    fleet.take("m")
    fleet.publish("yaml", [spec("a", url="http://other:1")])
    lines = fleet._metrics.text().splitlines()
    samples = [line.rpartition(" ")[0] for line in lines if line.startswith("router_")]
    assert len(samples) == len(set(samples))


def test_a_source_replaces_only_what_it_has_published_itself():
    fleet = build(spec("a"))
    fleet.publish("docker", [spec("b", source="docker")])
    fleet.publish("docker", [spec("c", source="docker")])
    assert states(fleet) == {"a": "healthy", "c": "loading"}


@pytest.mark.parametrize("order", [["yaml", "docker"], ["docker", "yaml"]])
def test_yaml_wins_over_another_source_of_the_same_name_in_any_order(order):
    fleet = build()
    for source in order:
        fleet.publish(source, [spec("a", source=source, url=f"http://{source}:1")])
    assert named(fleet, "a").spec.source == "yaml"
    assert len([s for s in fleet.services if not s.removed]) == 1


def test_what_yaml_gives_up_falls_to_the_other_source():
    fleet = build(spec("a"))
    fleet.publish("docker", [spec("a", source="docker", url="http://docker:1")])
    assert named(fleet, "a").is_healthy
    fleet.publish("yaml", [])
    assert named(fleet, "a").spec.source == "docker"


def test_who_listens_is_told_after_the_change():
    fleet = build()
    told = []
    fleet.on_change(lambda: told.append(sorted(states(fleet))))
    fleet.publish("yaml", [spec("a")])
    fleet.publish("yaml", [spec("b")])
    assert told == [["a"], ["b"]]


def test_counters_go_on_when_a_service_comes_back():
    fleet = build(spec("a"))
    cells = named(fleet, "a").cells
    fleet.publish("yaml", [])
    fleet.publish("yaml", [spec("a")])
    assert named(fleet, "a").cells is cells


def test_learnt_models_replace_those_learnt_before():
    fleet = build(spec("a", None), healthy=False)
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("old"), card("both")])
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("both"), card("new")])
    assert list(fleet.catalog.members) == ["both", "new"]


def test_models_that_were_not_read_stay_as_they_were():
    fleet = build(spec("a", None), healthy=False)
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("m")])
    fleet.set_health(named(fleet, "a"), UNHEALTHY, None)
    assert list(fleet.catalog.members) == ["m"]


def test_configured_models_are_not_replaced_by_learnt_ones():
    fleet = build(spec("a", ("mine",)))
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("mine"), card("other")])
    assert list(fleet.catalog.members) == ["mine"]
    assert set(named(fleet, "a").cards) == {"mine", "other"}


def test_a_probe_is_remembered_with_its_time():
    fleet = build(spec("a"), healthy=False)
    assert named(fleet, "a").last_check is None
    fleet.set_health(named(fleet, "a"), HEALTHY)
    assert named(fleet, "a").last_check == 1000.0


def test_a_group_is_the_name_unless_given():
    assert (spec("a").group, spec("a", group="g").group) == ("a", "g")


def test_an_engines_key_is_not_in_any_repr():
    fleet = build(spec("a", api_key="sk-secret"))
    service = named(fleet, "a")
    assert "sk-secret" not in repr(service) + repr(service.spec) + repr(fleet.catalog)


def test_a_draining_service_is_never_healthy():
    fleet = build(spec("a"))
    lease = fleet.take("m")
    fleet.publish("yaml", [])
    assert not lease.service.is_healthy
    assert state_of(lease.service) == "draining"
