"""Log-ins in memory: they end by time, by log-out, by another admin key, and by too many others."""

from __future__ import annotations

import pytest

from router.dashboard.sessions import Sessions

KEY, OTHER_KEY = "a" * 64, "b" * 64


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock) -> Sessions:
    return Sessions(clock, life_s=60, most=3)


def test_a_session_counts_from_its_log_in_on(sessions):
    assert sessions.counts(sessions.open(KEY), KEY)


def test_every_token_is_another_long_one(sessions):
    tokens = {sessions.open(KEY) for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 43


@pytest.mark.parametrize("token", ["", "guess", "x" * 10_000, "\udcff"])
def test_a_token_that_was_never_given_counts_for_nothing(sessions, token):
    sessions.open(KEY)
    assert not sessions.counts(token, KEY)


def test_a_session_ends_by_time(sessions, clock):
    token = sessions.open(KEY)
    clock.now += 59.9
    assert sessions.counts(token, KEY)
    clock.now += 0.1
    assert not sessions.counts(token, KEY)
    assert len(sessions) == 0


@pytest.mark.parametrize("key", [OTHER_KEY, None])
def test_another_admin_key_ends_the_sessions_of_the_old_one_for_good(sessions, key):
    token = sessions.open(KEY)
    assert not sessions.counts(token, key)
    assert not sessions.counts(token, KEY)


def test_a_session_ends_by_log_out_and_no_other_does(sessions):
    mine, yours = sessions.open(KEY), sessions.open(KEY)
    sessions.close(mine)
    sessions.close(mine)
    assert not sessions.counts(mine, KEY)
    assert sessions.counts(yours, KEY)


def test_one_too_many_ends_the_oldest(sessions):
    tokens = [sessions.open(KEY) for _ in range(4)]
    assert [sessions.counts(token, KEY) for token in tokens] == [False, True, True, True]
    assert len(sessions) == 3


def test_the_token_itself_is_not_kept(sessions):
    token = sessions.open(KEY)
    assert token not in repr(vars(sessions))
