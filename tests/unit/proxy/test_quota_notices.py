"""A quota that is used up is news once in ten minutes."""

from __future__ import annotations

import pytest

from router.errors import InsufficientQuota, Overloaded
from router.events import EventLog, Severity
from router.proxy.quota_notices import QuotaNotices

USED_UP = InsufficientQuota("The quota of 100 tokens a day is used up: 3 needed for this one.")


HELD = InsufficientQuota("The quota of 100 tokens a day is held by running requests: 3 needed.")


class House:
    def __init__(self) -> None:
        self.now = 0.0
        self.events = EventLog()
        self.notices = QuotaNotices(self.events, lambda: self.now)

    def told(self) -> list[str]:
        return [event.subject for event in self.events.since(0)]


@pytest.fixture
def house() -> House:
    return House()


def test_a_used_up_quota_is_an_event(house):
    house.notices.note("acme", USED_UP)
    (event,) = house.events.since(0)
    assert (event.kind, event.subject, event.severity) == ("quota", "acme", Severity.WARNING)
    assert event.text == "was refused: The quota of 100 tokens a day is used up"


def test_a_thousand_refusals_in_ten_minutes_are_one_event(house):
    for _ in range(1000):
        house.notices.note("acme", USED_UP)
        house.now += 0.59
    assert house.told() == ["acme"]
    house.now = 600.0
    house.notices.note("acme", USED_UP)
    assert house.told() == ["acme", "acme"]


def test_each_organization_is_told_by_itself(house):
    house.notices.note("acme", USED_UP)
    house.notices.note("globex", USED_UP)
    assert house.told() == ["acme", "globex"]


def test_a_quota_that_is_held_does_not_hide_that_it_is_used_up(house):
    for _ in range(10):
        house.notices.note("acme", HELD)
        house.notices.note("acme", USED_UP)
    told = [event.text for event in house.events.since(0)]
    assert [text.rpartition(" is ")[2] for text in told] == ["held by running requests", "used up"]


def test_other_refusals_are_no_news(house):
    house.notices.note("acme", Overloaded("full"))
    assert house.told() == []


def test_what_is_remembered_is_bounded(house):
    for number in range(3000):
        house.notices.note(f"o{number}", USED_UP)
    assert len(house.notices._told) <= 1024
