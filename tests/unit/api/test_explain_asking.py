"""What explaining rests on: the admin key and nothing else, and a parameter of the query."""

from __future__ import annotations

import hashlib

import pytest

from router.api.access import StatusGuard
from router.config.settings import ServerSettings
from router.errors import InvalidApiKey, MissingApiKey
from unit.api.asking import asking

KEY = "admin"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
WITH_KEY = ServerSettings(admin_key_sha256=DIGEST)


def check(*headers, settings=WITH_KEY, peer="127.0.0.1") -> None:
    StatusGuard(lambda: settings).check_admin(asking("/explain", *headers, peer=peer))


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def test_the_admin_key_passes_from_anywhere():
    check(bearer(KEY), peer="203.0.113.9")


def test_loopback_does_not_pass_without_it():
    with pytest.raises(MissingApiKey):
        check()


def test_another_key_does_not_pass():
    with pytest.raises(InvalidApiKey):
        check(bearer("other"))


def test_where_no_admin_key_is_configured_it_says_what_to_configure():
    with pytest.raises(MissingApiKey, match=r"server\.admin_key_sha256"):
        check(bearer(KEY), settings=ServerSettings())


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("/explain", None),
        ("/explain?", None),
        ("/explain?other=1", None),
        ("/explain?path=", ""),
        ("/explain?path=/v1/embeddings", "/v1/embeddings"),
        ("/explain?path=%2Fv1%2Fembeddings", "/v1/embeddings"),
        ("/explain?path=a&path=b", "a"),
        ("/explain?path=a?b", "a?b"),
        ("/explain?path=%ff", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_parameter_is_the_first_value_of_its_name(target, value):
    request = asking(target)
    assert request.path == "/explain"
    assert request.parameter("path") == value
