"""The door: the address's rate first, then the key; nothing gets past either."""

from __future__ import annotations

import pytest

from router.access import door as door_module
from router.access.door import Door
from router.access.identity import ANONYMOUS
from router.errors import InvalidApiKey, MissingApiKey, RateLimitExceeded
from router.limits.rate import RateLimiter

EPOCH = 1_800_000_000.0


class Keys:
    """Knows one key; writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def identify(self, authorization, x_api_key, now, badge=None):
        self.asked.append((authorization, x_api_key, now))
        if authorization is None and x_api_key is None:
            raise MissingApiKey("none")
        if authorization != "Bearer good":
            raise InvalidApiKey("bad")
        return ANONYMOUS


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def door(keys, monkeypatch) -> Door:
    """Two requests at once from an address, then one a second; the monotonic clock stands."""
    monkeypatch.setattr(door_module, "monotonic", lambda: 50.0)
    return Door(keys, RateLimiter(1, 2), lambda: EPOCH)


def test_who_shows_a_key_enters(door):
    assert door.enter(1, "Bearer good", None) is ANONYMOUS


def test_both_headers_and_the_time_of_day_reach_the_keyring(door, keys):
    door.enter(1, "Bearer good", "other")
    assert keys.asked == [("Bearer good", "other", EPOCH)]


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "error"),
    [(None, None, MissingApiKey), ("Bearer bad", None, InvalidApiKey), (None, "x", InvalidApiKey)],
)
def test_who_shows_none_does_not(door, authorization, x_api_key, error):
    with pytest.raises(error):
        door.enter(1, authorization, x_api_key)


def test_who_comes_too_often_is_told_when_to_come_again(door):
    for _ in range(2):
        door.enter(1, "Bearer good", None)
    with pytest.raises(RateLimitExceeded) as caught:
        door.enter(1, "Bearer good", None)
    assert caught.value.headers() == [("Retry-After", "1")]


def test_no_key_is_looked_at_for_who_comes_too_often(door, keys):
    """Guessing costs the router nothing beyond the rate."""
    for _ in range(10):
        with pytest.raises((InvalidApiKey, RateLimitExceeded)):
            door.enter(1, "Bearer guess", None)
    assert len(keys.asked) == 2


def test_a_wrong_key_counts_for_the_rate_as_a_right_one(door):
    for _ in range(2):
        with pytest.raises(InvalidApiKey):
            door.enter(1, "Bearer guess", None)
    with pytest.raises(RateLimitExceeded):
        door.enter(1, "Bearer good", None)


def test_one_address_does_not_use_up_anothers_rate(door):
    for _ in range(2):
        door.enter(1, "Bearer good", None)
    assert door.enter(2, "Bearer good", None) is ANONYMOUS
