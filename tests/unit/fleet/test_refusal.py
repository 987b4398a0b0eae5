"""Why no slot can be had, and when to ask again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from router.errors import ModelLoading, NoHealthyBackend
from router.fleet.load import EngineLoad
from router.fleet.refusal import nobody, retry_after
from router.fleet.service import Service
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, named, spec


def members(**states: str) -> list[Service]:
    """Services by name, each `down`, `loading` or `asleep`."""
    fleet = build(*(spec(name) for name in states), healthy=False)
    for name, state in states.items():
        service = named(fleet, name)
        if state == "down":
            fleet.set_health(service, UNHEALTHY)
        elif state == "asleep":
            fleet.set_health(service, HEALTHY)
            fleet.set_load(service, EngineLoad(awake=False), hung_after_s=30)
    return [named(fleet, name) for name in states]


@pytest.mark.parametrize(
    ("states", "kind", "words", "seconds"),
    [
        ({}, NoHealthyBackend, "No healthy service", 10),
        ({"a": "down"}, NoHealthyBackend, "No healthy service", 10),
        ({"a": "loading"}, ModelLoading, "still starting", 5),
        ({"a": "down", "b": "loading"}, ModelLoading, "still starting", 5),
        ({"a": "asleep"}, NoHealthyBackend, "asleep", 10),
        ({"a": "down", "b": "asleep"}, NoHealthyBackend, "asleep", 10),
    ],
)
def test_the_most_hopeful_of_what_is_left_is_told(states, kind, words, seconds):
    error = nobody("m", members(**states), ())
    assert type(error) is kind
    assert words in error.message
    assert error.retry_after_s == seconds


def test_what_was_tried_already_is_not_told_of():
    services = members(a="down", b="loading")
    assert type(nobody("m", services, services[1:])) is NoHealthyBackend


def ended(*counts: float) -> list:
    """Stand-ins that ended so many requests in the last minute."""
    recents = (SimpleNamespace(ended=lambda _now, count=count: count) for count in counts)
    return [SimpleNamespace(cells=SimpleNamespace(recent=recent)) for recent in recents]


def test_a_slot_is_likely_after_as_many_ends_as_requests_wait_and_one_more():
    assert retry_after(ended(60), 0, 0.0) == 1.0
    assert retry_after(ended(60), 9, 0.0) == 10.0


def test_all_services_of_the_model_count_together():
    assert retry_after(ended(60, 60, 0), 9, 0.0) == 5.0


def test_nobody_is_sent_away_for_over_a_minute():
    assert retry_after(ended(1), 10_000, 0.0) == 60.0


@pytest.mark.parametrize("services", [[], ended(0), ended(0, 0)])
def test_where_nothing_ended_lately_a_second_is_said(services):
    assert retry_after(services, 5, 0.0) == 1.0
