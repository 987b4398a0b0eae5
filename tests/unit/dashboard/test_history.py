"""What sparklines show: points by time, rates of counters that are read now and then, gaps."""

from __future__ import annotations

import pytest

from router.dashboard.history import POINTS, STEP_S, History, Reading

BOUNDS = (0.1, 1.0)


def reading(tokens=0, at=0.0, **more) -> Reading:
    known = {"in_flight": 0, "kv_cache": 0.5, "first_tokens": (0, 0, 0), "bounds": BOUNDS}
    return Reading(tokens=tokens, tokens_at=at, **{**known, **more})


class Watch:
    """A history that is fed every five seconds."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 1000.0

    def add(self, **readings: Reading) -> None:
        self.now += STEP_S
        self.history.sample(self.now, readings)

    def points(self, name: str) -> list:
        return dict(self.history.whole())[name]


@pytest.fixture
def watch() -> Watch:
    return Watch()


# -- tokens a second -------------------------------------------------------------------------------


def test_a_rate_is_by_the_times_at_which_the_counter_was_read(watch):
    """The engine is read every 4 s, the history sampled every 5: the rate does not ripple."""
    for step in range(1, 20):
        read_at = (1000 + step * STEP_S) // 4 * 4
        watch.add(a=reading(tokens=int(read_at) * 10, at=read_at))
    rates = [point[0] for point in watch.points("a")][1:]
    assert rates == pytest.approx([10] * len(rates))


def test_one_reading_is_no_rate(watch):
    watch.add(a=reading(tokens=500, at=1004))
    assert watch.points("a")[0][0] is None


def test_a_counter_that_stands_still_is_no_rate_for_ever(watch):
    watch.add(a=reading(tokens=0, at=1000))
    watch.add(a=reading(tokens=100, at=1010))
    for _ in range(4):
        watch.add(a=reading(tokens=100, at=1010))
    assert watch.points("a")[-1][0] == 0


def test_an_engine_that_started_anew_makes_no_negative_rate(watch):
    watch.add(a=reading(tokens=1000, at=1004))
    watch.add(a=reading(tokens=2000, at=1009))
    watch.add(a=reading(tokens=50, at=1014))
    watch.add(a=reading(tokens=100, at=1019))
    rates = [point[0] for point in watch.points("a")]
    assert rates == [None, 200, None, 10]


# -- time to first token ---------------------------------------------------------------------------


def test_quantiles_are_of_what_came_since_not_of_all(watch):
    watch.add(a=reading(first_tokens=(0, 0, 900)))
    watch.add(a=reading(first_tokens=(100, 0, 900)))
    trail = watch.history.of("a")
    assert trail.ttft_p50 == pytest.approx(0.05)
    assert trail.ttft_p95 == pytest.approx(0.095)


def test_what_is_older_than_three_minutes_no_longer_counts(watch):
    watch.add(a=reading(first_tokens=(0, 0, 0)))
    for _ in range(40):
        watch.add(a=reading(first_tokens=(0, 5, 0)))
    assert watch.history.of("a").ttft_p50 is None


# -- points ----------------------------------------------------------------------------------------


def test_fifteen_minutes_are_kept_and_no_more(watch):
    for count in range(POINTS + 20):
        watch.add(a=reading(in_flight=count))
    points = watch.points("a")
    assert len(points) * STEP_S == 15 * 60
    assert points[-1][1] == POINTS + 19


def test_a_service_that_comes_late_has_gaps_before_it(watch):
    watch.add(a=reading())
    watch.add(a=reading(), b=reading(in_flight=3))
    assert [point[1] for point in watch.points("b")] == [None, 3]


def test_a_service_that_goes_away_leaves_a_gap_and_comes_back_to_its_past(watch):
    watch.add(a=reading(in_flight=1))
    watch.add()
    watch.add(a=reading(in_flight=2))
    assert [point[1] for point in watch.points("a")] == [1, None, 2]


def test_one_that_stays_away_is_forgotten(watch):
    watch.add(a=reading())
    for _ in range(POINTS):
        watch.add()
    assert watch.history.of("a") is None


def test_names_that_come_and_go_do_not_grow_it(watch):
    watch.add(**{f"old-{number}": reading() for number in range(200)})
    watch.add(**{f"new-{number}": reading() for number in range(200)})
    kept = dict(watch.history.whole())
    assert len(kept) == 256
    assert {f"new-{number}" for number in range(200)} <= set(kept)
