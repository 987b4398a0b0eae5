"""The router at one moment, in rows; and what differs between two moments."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from router.api.pages import Condition
from router.dashboard.history import History
from router.dashboard.picture import MAX_ORGANIZATIONS, Painter, Sources, difference
from router.fleet.load import EngineLoad
from router.ledger import Limits, MemoryLedger
from unit.fleet.fleet_fakes import UNHEALTHY, build, named, spec


class House:
    """A painter before two services of one model and one of another."""

    def __init__(self) -> None:
        self.fleet = build(
            spec("a", gpu="0", max_concurrency=4), spec("b", gpu="1"), spec("c", ("other",)),
            aliases={"short": "m"},
        )  # fmt: skip
        self.ledger = MemoryLedger({"acme": Limits(daily_tokens=100)})
        self.history = History()
        condition = Condition("running", 3, None)
        sources = Sources(self.fleet, self.ledger, lambda: condition, lambda: 7, "1.2.3")
        self.painter = Painter(sources, self.history)

    def rows(self, section: str) -> dict:
        picture = self.painter.picture()
        return {key: json.loads(row) for key, row in picture[section].items()}


@pytest.fixture
def house() -> House:
    return House()


def test_a_service_is_told_with_what_it_holds_and_may_hold(house):
    house.fleet.take("m")
    row = house.rows("services")["a"]
    assert (row["gpu"], row["models"], row["state"]) == ("0", ["m"], "healthy")
    assert (row["in_flight"], row["max_concurrency"]) == (1, 4)


def test_what_an_engine_tells_of_itself_is_passed_on(house):
    service = named(house.fleet, "a")
    house.fleet.set_load(service, EngineLoad(running=2, waiting=5, kv_cache_usage=0.25), 30)
    row = house.rows("services")["a"]
    assert (row["engine_running"], row["engine_waiting"], row["kv_cache"]) == (2, 5, 0.25)


def test_a_clock_that_is_set_moves_the_start_with_it(house, monkeypatch):
    """The page tells how long the router is up by the distance between the two."""
    before = house.rows("router")[""]["started"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    after = house.rows("router")[""]["started"]
    assert after - before == pytest.approx(86_400, abs=60)


def test_an_engine_that_tells_nothing_has_no_numbers_made_up(house):
    row = house.rows("services")["b"]
    told = {row[key] for key in ("engine_running", "kv_cache", "tokens_per_s", "ttft_p50")}
    assert told == {None}


def test_a_dead_service_says_why_and_since_when(house):
    service = named(house.fleet, "a")
    service.last_error = "refused"
    house.fleet.set_health(service, UNHEALTHY)
    row = house.rows("services")["a"]
    assert (row["state"], row["last_error"], row["since"]) == ("unhealthy", "refused", 1000)


def test_what_a_dead_engine_told_last_is_not_told_as_present(house):
    service = named(house.fleet, "a")
    house.fleet.set_load(service, EngineLoad(running=2, kv_cache_usage=0.25), 30)
    house.fleet.set_health(service, UNHEALTHY)
    row = house.rows("services")["a"]
    assert (row["kv_cache"], row["engine_running"]) == (None, None)
    assert house.painter.readings()["a"].kv_cache is None


def test_one_that_drains_stands_beside_its_successor(house):
    house.fleet.take("other")
    house.fleet.publish("yaml", [spec("c", ("other",), url="http://new:1")])
    rows = house.rows("services")
    assert {key: row["state"] for key, row in rows.items()} == {
        "c": "loading",
        "c (old)": "draining",
    }


def test_a_model_is_told_with_its_healthy_services_and_its_aliases(house):
    house.fleet.set_health(named(house.fleet, "b"), UNHEALTHY)
    row = house.rows("models")["m"]
    assert row == {"services": 2, "healthy": 1, "queued": 0, "aliases": ["short"]}


def test_an_organization_is_told_with_its_windows(house):
    windows = house.rows("organizations")["acme"]
    assert [(each["kind"], each["period"], each["limit"]) for each in windows] == [
        ("tokens", "day", 100),
        ("tokens", "month", None),
        ("requests", "day", None),
    ]


def test_organizations_past_200_are_counted_only(house):
    house.ledger.configure({f"o{number}": Limits(daily_tokens=1) for number in range(230)})
    assert len(house.rows("organizations")) == MAX_ORGANIZATIONS
    assert house.rows("router")[""]["organizations_untold"] >= 30


def test_the_router_tells_of_itself(house):
    row = house.rows("router")[""]
    assert (row["phase"], row["version"], row["generation"]) == ("running", "1.2.3", 3)
    assert row["in_flight"] == 7


def test_the_history_is_of_what_is_published(house):
    house.fleet.take("other")
    house.fleet.publish("yaml", [spec("a")])
    assert set(house.painter.readings()) == {"a"}


def test_nothing_secret_is_told(house):
    house.fleet.publish("yaml", [spec("a", api_key="sk-upstream-secret")])
    assert b"sk-upstream-secret" not in b"".join(house.painter.picture()["services"].values())


# -- differences -----------------------------------------------------------------------------------


def test_a_difference_holds_what_is_new_what_changed_and_what_is_gone():
    old = {"s": {"same": b"1", "changed": b"1", "gone": b"1"}, "quiet": {"x": b"1"}}
    new = {"s": {"same": b"1", "changed": b"2", "new": b"3"}, "quiet": {"x": b"1"}}
    assert difference(old, new) == {
        "s": {"changed": msgspec.Raw(b"2"), "new": msgspec.Raw(b"3"), "gone": None}
    }


def test_from_nothing_the_difference_is_all(house):
    picture = house.painter.picture()
    assert set(difference({}, picture)) == {"router", "services", "models", "organizations"}


def test_while_nothing_changes_there_is_no_difference(house):
    assert difference(house.painter.picture(), house.painter.picture()) == {}
