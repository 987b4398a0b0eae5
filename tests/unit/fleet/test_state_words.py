"""Changes of a service's state: listeners hear of each, and people get a sentence."""

from __future__ import annotations

import pytest

from router.events import Severity
from router.fleet.words import duration, state_told
from router.model import ServiceState
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, named, spec

S = ServiceState


@pytest.mark.parametrize(
    ("state", "was", "error", "text", "severity"),
    [
        (S.HEALTHY, S.LOADING, None, "is up, after 12 s of loading", Severity.INFO),
        (S.HEALTHY, S.UNHEALTHY, None, "is healthy again, after 12 s down", Severity.INFO),
        (S.UNHEALTHY, S.HEALTHY, "refused", "is down: refused", Severity.ERROR),
        (S.UNHEALTHY, S.HEALTHY, None, "is down", Severity.ERROR),
        (S.EJECTED, S.HEALTHY, "status 500", "is ejected: status 500", Severity.WARNING),
        (S.EJECTED, S.HEALTHY, None, "is ejected: requests to it fail", Severity.WARNING),
        (S.LOADING, S.UNHEALTHY, "refused", "is loading", Severity.INFO),
        (S.DRAINING, S.HEALTHY, "old news", "is draining", Severity.INFO),
    ],
)
def test_a_change_is_told_in_a_sentence(state, was, error, text, severity):
    assert state_told(state, was, 12.0, error) == (text, severity)


def test_every_change_has_a_sentence():
    for state in S:
        for was in S:
            assert state_told(state, was, 1.0, None)[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (59, "59 s"), (600, "10 min"), (11_520, "3.2 h")]
)
def test_times_are_told_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_listener_hears_of_a_change_once_it_has_happened():
    fleet = build(spec("a"))
    heard = []
    fleet.on_state(lambda service, was, was_for_s: heard.append((service.shown, was, was_for_s)))
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    fleet.set_health(named(fleet, "a"), HEALTHY)
    assert heard == [(S.UNHEALTHY, S.HEALTHY, 0.0), (S.HEALTHY, S.UNHEALTHY, 0.0)]
