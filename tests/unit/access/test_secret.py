"""The key: how it is made, and how a request carries it."""

from __future__ import annotations

import base64
import hashlib

import pytest

from router.access.secret import MAX_KEY_LENGTH, digest_of, new_key, presented_key, shown_part
from router.errors import InvalidApiKey, MissingApiKey


def test_a_key_is_256_random_bits_behind_a_prefix() -> None:
    key = new_key()
    assert key.startswith("sk-")
    assert len(base64.urlsafe_b64decode(key[3:] + "=")) == 32
    assert key != new_key()


def test_what_is_kept_is_the_sha256_that_sha256sum_prints() -> None:
    assert digest_of("sk-abc") == hashlib.sha256(b"sk-abc").digest()


def test_header_bytes_that_are_no_utf8_have_a_hash_too() -> None:
    assert digest_of(b"sk-\xff".decode("utf-8", "surrogateescape")) == (
        hashlib.sha256(b"sk-\xff").digest()
    )


def test_people_see_four_random_characters() -> None:
    assert shown_part("sk-abcdefgh") == "sk-abcd"


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "key"),
    [
        ("Bearer sk-1", None, "sk-1"),
        ("bearer sk-1", None, "sk-1"),
        ("BEARER   sk-1 ", None, "sk-1"),
        (None, "sk-2", "sk-2"),
        (None, " sk-2 ", "sk-2"),
        ("Bearer sk-1", "sk-2", "sk-1"),
        ("Bearer ", "sk-2", "sk-2"),
        ("Basic dXNlcjpwYXNz", "sk-2", "sk-2"),
        ("Bearer " + "k" * MAX_KEY_LENGTH, None, "k" * MAX_KEY_LENGTH),
    ],
)
def test_a_key_is_the_bearers_or_that_of_x_api_key(
    authorization: str | None, x_api_key: str | None, key: str
) -> None:
    assert presented_key(authorization, x_api_key) == key


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic x", "sk-1"])
@pytest.mark.parametrize("x_api_key", [None, "", " "])
def test_without_a_key_the_answer_says_how_to_send_one(
    authorization: str | None, x_api_key: str | None
) -> None:
    with pytest.raises(MissingApiKey, match="Authorization: Bearer <key>"):
        presented_key(authorization, x_api_key)


def test_what_is_longer_than_any_key_is_refused() -> None:
    with pytest.raises(InvalidApiKey):
        presented_key("Bearer " + "k" * (MAX_KEY_LENGTH + 1), None)
