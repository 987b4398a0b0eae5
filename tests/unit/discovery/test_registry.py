"""Which containers are services, under which names, whatever comes in whatever order."""

from __future__ import annotations

from pathlib import Path

from router.discovery.container import Container, Fate
from router.discovery.labels import View, judge
from router.discovery.registry import Registry
from unit.discovery.engine_fakes import NETWORK, container, event, identifier


def look(registry: Registry, *containers: Container, whole: bool = True, passed_over=()):
    """Hand over what a look at these containers finds."""
    found = {each.id: judge(each, View(NETWORK), Path.read_text) for each in containers}
    return registry.found(found, is_whole=whole, passed_over=passed_over)


def chat(number: int, **more) -> Container:
    return container(number, labels={"router.name": "chat", **more.pop("labels", {})}, **more)


def names(registry: Registry, taken=()) -> dict[str, str]:
    """Url's last number by service."""
    return {spec.name: spec.url for spec in registry.specs(taken)}


def second_name(number: int) -> str:
    return f"chat-{identifier(number)[:12]}"


def test_what_a_look_finds_is_a_service():
    registry = Registry()
    change = look(registry, container(1))
    assert names(registry) == {"c1": "http://172.18.0.2:8000"}
    assert [came.spec.name for came in change.came] == ["c1"]


def test_what_a_look_at_everything_does_not_find_is_gone():
    registry = Registry()
    look(registry, container(1), container(2))
    change = look(registry, container(2))
    assert list(names(registry)) == ["c2"]
    assert [(went.service, went.why) for went in change.went] == [("c1", "is no longer there")]


def test_a_look_at_some_says_nothing_of_the_others():
    registry = Registry()
    look(registry, container(1))
    look(registry, container(2), whole=False)
    assert list(names(registry)) == ["c1", "c2"]


def test_a_look_that_finds_nothing_new_changes_nothing():
    registry = Registry()
    look(registry, container(1))
    assert look(registry, container(1)).is_empty


def test_another_address_is_a_change_and_no_coming_or_going():
    registry = Registry()
    look(registry, container(1))
    change = look(registry, container(1, addresses={NETWORK: "172.18.0.99"}))
    assert (change.came, change.went, change.altered) == ((), (), True)
    assert names(registry) == {"c1": "http://172.18.0.99:8000"}


# -- events --------------------------------------------------------------------------------------


def test_what_an_event_takes_out_is_out_at_once():
    for fate in (Fate.DIED, Fate.PAUSED, Fate.UNHEALTHY, Fate.REMOVED):
        registry = Registry()
        look(registry, container(1))
        change = registry.note(event(fate))
        assert [(went.service, went.why) for went in change.went] == [("c1", fate.value)]
        assert names(registry) == {}


def test_an_event_of_a_container_that_is_no_service_changes_nothing():
    registry = Registry()
    assert registry.note(event(Fate.DIED)).is_empty


def test_a_change_alone_takes_nothing_out():
    registry = Registry()
    look(registry, container(1))
    assert registry.note(event(Fate.CHANGED)).is_empty
    assert list(names(registry)) == ["c1"]


def test_a_list_that_still_shows_what_has_died_does_not_bring_it_back():
    registry = Registry()
    look(registry, container(1, started_at=1000))
    registry.note(event(Fate.DIED, at=2000))
    assert look(registry, container(1, started_at=1000)).is_empty
    assert names(registry) == {}


def test_what_was_started_after_it_had_died_is_back():
    registry = Registry()
    look(registry, container(1, started_at=1000))
    registry.note(event(Fate.DIED, at=2000))
    look(registry, container(1, started_at=3000))
    assert list(names(registry)) == ["c1"]


def test_what_was_started_by_a_clock_that_was_set_back_is_back():
    registry = Registry()
    look(registry, container(1, started_at=1000))
    registry.note(event(Fate.DIED, at=2000))
    look(registry, container(1, started_at=500))
    assert list(names(registry)) == ["c1"]


def test_the_death_of_one_that_was_out_keeps_it_out_by_the_time():
    registry = Registry()
    registry.note(event(Fate.DIED, at=2000))
    look(registry, container(1, started_at=1000))
    assert names(registry) == {}


def test_the_death_of_an_earlier_life_does_not_end_the_present_one():
    registry = Registry()
    look(registry, container(1, started_at=3000))
    assert registry.note(event(Fate.DIED, at=2000)).is_empty
    assert list(names(registry)) == ["c1"]


def test_what_was_paused_is_back_when_a_look_finds_it_so():
    registry = Registry()
    look(registry, container(1))
    registry.note(event(Fate.PAUSED))
    look(registry, container(1))
    assert list(names(registry)) == ["c1"]


def test_what_a_look_says_of_a_container_that_had_an_event_meanwhile_is_passed_over():
    registry = Registry()
    look(registry, container(1))
    registry.note(event(Fate.PAUSED))
    assert look(registry, container(1), passed_over=[identifier(1)]).is_empty
    assert names(registry) == {}


def test_what_had_an_event_meanwhile_is_not_gone_because_the_look_missed_it():
    registry = Registry()
    look(registry, container(1))
    look(registry, passed_over=[identifier(1)])
    assert list(names(registry)) == ["c1"]


def test_what_died_and_started_while_nobody_listened_goes_and_comes():
    registry = Registry()
    look(registry, container(1, started_at=1000))
    change = look(registry, container(1, started_at=5000))
    assert [went.service for went in change.went] == ["c1"]
    assert [came.spec.name for came in change.came] == ["c1"]


def test_deaths_of_containers_that_are_gone_are_forgotten():
    registry = Registry()
    for number in range(1, 50):
        registry.note(event(Fate.DIED, number))
    look(registry)
    assert registry._ended == {}


# -- names ---------------------------------------------------------------------------------------


def test_two_of_one_name_are_both_there_the_older_has_the_name():
    registry = Registry()
    look(registry, chat(2), chat(1))
    assert names(registry) == {
        "chat": "http://172.18.0.2:8000",
        second_name(2): "http://172.18.0.3:8000",
    }
    assert {spec.group for spec in registry.specs()} == {"chat"}


def test_a_name_stays_while_its_container_does():
    registry = Registry()
    look(registry, chat(1), chat(2))
    registry.note(event(Fate.DIED, 1))
    look(registry, chat(2))
    assert list(names(registry)) == [second_name(2)]


def test_a_name_that_is_free_again_goes_to_who_comes_next():
    registry = Registry()
    look(registry, chat(1), chat(2))
    registry.note(event(Fate.DIED, 1, at=2000))
    look(registry, chat(1, started_at=3000), whole=False)
    assert set(names(registry)) == {"chat", second_name(2)}


def test_a_long_name_with_an_identifier_behind_it_is_still_a_name():
    registry = Registry()
    long = {"router.name": "n" * 64}
    look(registry, container(1, labels=long), container(2, labels=long))
    assert all(len(name) <= 64 for name in names(registry))
    assert len(names(registry)) == 2


def test_a_container_that_was_renamed_has_its_new_name():
    registry = Registry()
    look(registry, container(1, name="old"))
    look(registry, container(1, name="new"))
    assert list(names(registry)) == ["new"]


def test_names_that_the_file_has_given_are_left_to_it_all_members_together():
    registry = Registry()
    look(registry, chat(1), chat(2), container(3))
    assert list(names(registry, taken={"chat"})) == ["c3"]


# -- what is wrong -------------------------------------------------------------------------------


def test_what_is_wrong_with_labels_is_kept_until_it_is_not():
    registry = Registry()
    look(registry, container(1, labels={"router.port": "x"}))
    (complaint,) = registry.problems
    assert (complaint.container, complaint.is_out) == ("c1", True)
    look(registry)
    assert registry.problems == ()


def test_a_remark_is_told_of_a_service_that_serves():
    registry = Registry()
    look(registry, container(1, labels={"router.zzz": "x"}))
    (complaint,) = registry.problems
    assert (complaint.container, complaint.is_out) == ("c1", False)
    assert list(names(registry)) == ["c1"]
