"""What a source publishes to the fleet: what is dead lets go at once, what is gone may end."""

from __future__ import annotations

import pytest

from router.api.gauges import discovery_gauges
from router.discovery import SourceStatus
from unit.fleet.fleet_fakes import build, named, spec, state_of


@pytest.fixture
def fleet():
    """Two healthy services of one model, `a` of Docker, and who was told to have gone down."""
    fleet = build(spec("b"))
    fleet.publish("docker", [spec("a", source="docker")])
    return fleet


def downs(fleet) -> list[str]:
    told: list[str] = []
    fleet.on_down(lambda service: told.append(service.name))
    return told


def make_healthy(fleet, name: str) -> None:
    from_b = named(fleet, "b")
    fleet.set_health(named(fleet, name), from_b.health)


def test_what_is_dead_is_told_so_that_what_waits_there_moves(fleet):
    make_healthy(fleet, "a")
    told = downs(fleet)
    fleet.publish("docker", [], dead=["a"])
    assert told == ["a"]


def test_what_is_gone_and_not_dead_is_left_to_end_what_it_does(fleet):
    make_healthy(fleet, "a")
    told = downs(fleet)
    fleet.publish("docker", [])
    assert told == []


def test_who_is_told_finds_the_dead_out_of_the_catalog(fleet):
    make_healthy(fleet, "a")
    members: list[list[str]] = []
    fleet.on_down(
        lambda _: members.append([service.name for service in fleet.catalog.members["m"]])
    )
    fleet.publish("docker", [], dead=["a"])
    assert members == [["b"]]


def test_what_was_never_usable_is_not_told_to_have_gone_down(fleet):
    told = downs(fleet)
    fleet.publish("docker", [], dead=["a"])
    assert told == []


def test_a_dead_name_that_another_source_still_has_is_that_sources(fleet):
    make_healthy(fleet, "a")
    fleet.publish("yaml", [spec("b"), spec("a", source="yaml", url="http://yaml:1")])
    told = downs(fleet)
    fleet.publish("docker", [], dead=["a", "b"])
    assert told == []
    assert {service.name for service in fleet.services} == {"a", "b"}


def test_a_dead_service_with_requests_drains(fleet):
    make_healthy(fleet, "a")
    lease = fleet.take("m", [named(fleet, "b")])
    fleet.publish("docker", [], dead=["a"])
    assert state_of(lease.service) == "draining"
    lease.release()


@pytest.mark.parametrize("order", [["files", "docker"], ["docker", "files"]])
def test_a_file_wins_over_a_label_of_the_same_name_in_any_order(order):
    fleet = build()
    for source in order:
        fleet.publish(source, [spec("a", source=source, url=f"http://{source}:1")])
    assert named(fleet, "a").spec.source == "files"


def test_each_source_has_its_gauges():
    statuses = [
        SourceStatus("docker", True, 7, 2),
        SourceStatus("files", False, 1, 0, "cannot be read"),
    ]
    lines = [line for family in discovery_gauges(statuses) for line in family.lines]
    assert {name: float(value) for name, value in (line.split() for line in lines)} == {
        'router_discovery_healthy{source="docker"}': 1,
        'router_discovery_healthy{source="files"}': 0,
        'router_discovery_generation{source="docker"}': 7,
        'router_discovery_generation{source="files"}': 1,
        'router_discovery_services{source="docker"}': 2,
        'router_discovery_services{source="files"}': 0,
    }
