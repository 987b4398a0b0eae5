"""Which keys count, and when nobody needs one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.access.audit import KeyAudit
from router.access.identity import ANONYMOUS
from router.access.keyring import Keyring
from router.access.known import StoredKeys
from router.access.secret import digest_of
from router.config.settings import KeySettings, OrganizationSettings
from router.errors import InvalidApiKey, MissingApiKey
from router.storage import KeyRow

FILE_KEY = "sk-of-the-file"
STORED_KEY = "sk-of-the-database"
NOW = 1_800_000_000.0
Lines = list[dict[str, Any]]


def organization(name: str = "acme", key: str = FILE_KEY, **more: Any) -> OrganizationSettings:
    settings = KeySettings.model_validate({"id": f"{name}-1", "sha256": sha(key), **more})
    return OrganizationSettings(id=name, keys=(settings,))


def row(**changes: Any) -> KeyRow:
    made = KeyRow("beta-1", "beta", sha(STORED_KEY), "sk-of-t", ("*",), NOW - 100)
    return replace(made, **changes)


def sha(key: str) -> str:
    return digest_of(key).hex()


def bearer(key: str) -> str:
    return f"Bearer {key}"


@pytest.fixture(autouse=True)
def logged() -> Iterator[Lines]:
    with capture_logs() as lines:
        yield lines


def events(lines: Lines) -> list[str]:
    return [line["event"] for line in lines]


# -- which keys count --------------------------------------------------------------------------


def test_a_key_of_the_file_stands_for_its_organization() -> None:
    keyring = Keyring([organization(models=["Qwen/*"], priority=7)])
    identity = keyring.identify(bearer(FILE_KEY), None, NOW)
    assert (identity.organization, identity.key_id, identity.priority) == ("acme", "acme-1", 7)
    assert identity.allows("Qwen/x")
    assert not identity.allows("other")
    assert keyring.identify(None, FILE_KEY, NOW) == identity


def test_a_key_of_the_database_stands_for_its_organization() -> None:
    keyring = Keyring([organization()], stored=True)
    keyring.refresh_from(StoredKeys.of([row(models=("a",), priority=-3)]))
    identity = keyring.identify(None, STORED_KEY, NOW)
    assert (identity.organization, identity.key_id, identity.priority) == ("beta", "beta-1", -3)
    assert identity.patterns == ("a",)
    assert keyring.active(NOW) == 2


def test_an_organization_has_as_many_keys_as_it_likes() -> None:
    keyring = Keyring([organization()], stored=True)
    keyring.refresh_from(StoredKeys.of([row(organization="acme")]))
    told = {keyring.identify(None, key, NOW).organization for key in (FILE_KEY, STORED_KEY)}
    assert told == {"acme"}


def test_the_file_counts_while_the_database_is_not_read() -> None:
    keyring = Keyring([organization()], stored=True)
    assert keyring.identify(None, FILE_KEY, NOW).organization == "acme"


def test_a_key_ends_at_the_second_at_which_it_expires() -> None:
    in_file = organization(expires="2027-01-15T08:00:00Z")
    keyring = Keyring([in_file], stored=True)
    keyring.refresh_from(StoredKeys.of([row(expires_at=NOW)]))
    for key in (FILE_KEY, STORED_KEY):
        assert keyring.identify(None, key, NOW - 0.001)
        with pytest.raises(InvalidApiKey):
            keyring.identify(None, key, NOW)


def test_wrong_expired_and_revoked_keys_get_the_same_answer_without_the_key() -> None:
    keyring = Keyring([organization(expires="2001-01-01")], stored=True)
    keyring.refresh_from(StoredKeys.of([row(revoked_at=NOW - 1)]))
    answers = set()
    for key in (FILE_KEY, STORED_KEY, "sk-wrong", "\udcff", "k" * 10_000):
        with pytest.raises(InvalidApiKey) as refused:
            keyring.identify(bearer(key), None, NOW)
        answers.add((refused.value.message, refused.value.code))
        assert key not in refused.value.message
    assert len(answers) == 1


def test_revoked_in_the_database_is_revoked_though_the_file_has_the_key_too() -> None:
    keyring = Keyring([organization()], stored=True)
    keyring.refresh_from(StoredKeys.of([row(sha256=sha(FILE_KEY))]))
    assert keyring.identify(None, FILE_KEY, NOW).key_id == "acme-1"
    keyring.refresh_from(StoredKeys.of([row(sha256=sha(FILE_KEY), revoked_at=1.0)]))
    with pytest.raises(InvalidApiKey):
        keyring.identify(None, FILE_KEY, NOW)


def test_a_reload_replaces_the_keys_of_the_file_alone() -> None:
    keyring = Keyring([organization()], stored=True)
    keyring.refresh_from(StoredKeys.of([row()]))
    keyring.configure([organization("gamma", "sk-new")])
    assert keyring.identify(None, "sk-new", NOW).organization == "gamma"
    assert keyring.identify(None, STORED_KEY, NOW).organization == "beta"
    with pytest.raises(InvalidApiKey):
        keyring.identify(None, FILE_KEY, NOW)


# -- organizations and their limits ------------------------------------------------------------


def test_an_organization_of_the_database_alone_has_the_default_limits() -> None:
    limited = OrganizationSettings(id="acme", daily_tokens=5)
    keyring = Keyring([limited], stored=True)
    keyring.refresh_from(StoredKeys.of([row(), row(id="x", sha256="00" * 32, organization="acme")]))
    assert keyring.organizations == (limited, OrganizationSettings(id="beta"))


def test_limits_are_told_before_the_key_that_needs_them_counts() -> None:
    keyring = Keyring([organization()], stored=True)
    told: list[tuple[list[str], int]] = []
    keyring.on_change(lambda all_: told.append(([o.id for o in all_], keyring.active(NOW))))
    keyring.refresh_from(StoredKeys.of([row()]))
    assert told == [(["acme"], 1), (["acme", "beta"], 1)]
    assert keyring.active(NOW) == 2


# -- anonymous ---------------------------------------------------------------------------------


def test_without_any_key_everybody_is_let_in_and_a_key_that_is_sent_is_ignored(
    logged: Lines,
) -> None:
    keyring = Keyring([OrganizationSettings(id="acme")], stored=True)
    keyring.refresh_from(StoredKeys())
    assert keyring.anonymous
    assert keyring.identify(None, None, NOW) is ANONYMOUS
    assert keyring.identify("Bearer none", None, NOW) is ANONYMOUS
    assert [line["log_level"] for line in logged if line["event"] == "anonymous"] == ["warning"]


def test_without_a_database_the_file_alone_decides() -> None:
    assert Keyring().anonymous
    assert not Keyring([organization()]).anonymous


@pytest.mark.parametrize("changes", [{"revoked_at": 1.0}, {"expires_at": 1.0}])
def test_keys_that_no_longer_count_still_exist(changes: dict[str, float]) -> None:
    keyring = Keyring(stored=True)
    keyring.refresh_from(StoredKeys.of([row(**changes)]))
    with pytest.raises(MissingApiKey):
        keyring.identify(None, None, NOW)


def test_an_expired_key_of_the_file_still_exists() -> None:
    assert not Keyring([organization(expires="2001-01-01")]).anonymous


def test_nobody_is_let_in_until_the_database_has_been_read() -> None:
    with pytest.raises(MissingApiKey):
        Keyring(stored=True).identify(None, None, NOW)


def test_nobody_is_let_in_after_a_damaged_database_was_set_aside(logged: Lines) -> None:
    keyring = Keyring(stored=True)
    keyring.refresh_from(StoredKeys.of([], lost=True))
    with pytest.raises(MissingApiKey):
        keyring.identify(None, None, NOW)
    assert "keys_lost" in events(logged)
    keyring.refresh_from(StoredKeys.of([]))
    assert keyring.anonymous


def test_keys_that_are_gone_from_the_database_do_not_open_the_house() -> None:
    """No command deletes keys: the file was replaced."""
    keyring = Keyring(stored=True)
    keyring.refresh_from(StoredKeys.of([row()]))
    keyring.refresh_from(StoredKeys())
    keyring.refresh_from(StoredKeys())
    with pytest.raises(MissingApiKey):
        keyring.identify(None, None, NOW)


def test_the_first_key_closes_the_house_and_says_so(logged: Lines) -> None:
    keyring = Keyring(stored=True)
    keyring.refresh_from(StoredKeys())
    keyring.refresh_from(StoredKeys.of([row()]))
    with pytest.raises(MissingApiKey):
        keyring.identify(None, None, NOW)
    assert events(logged) == ["keys_read", "anonymous", "key_made", "keys_required"]


# -- the record --------------------------------------------------------------------------------


def test_made_revoked_and_removed_keys_are_told_once_each(logged: Lines) -> None:
    keyring = Keyring([organization()], stored=True)
    keyring.refresh_from(StoredKeys())
    keyring.refresh_from(StoredKeys.of([row()]))
    keyring.refresh_from(StoredKeys.of([row()]))
    keyring.refresh_from(StoredKeys.of([row(revoked_at=NOW)]))
    keyring.configure([])
    told = [(line["event"], line["source"], line["key_id"]) for line in logged if "source" in line]
    assert told == [
        ("key_made", "database", "beta-1"),
        ("key_revoked", "database", "beta-1"),
        ("key_removed", "configuration", "acme-1"),
    ]


def test_a_refusal_is_told_with_its_reason_and_without_the_key(logged: Lines) -> None:
    keyring = Keyring([organization(expires="2001-01-01")], stored=True)
    keyring.refresh_from(StoredKeys.of([row(revoked_at=1.0)]))
    for key in (FILE_KEY, STORED_KEY, "sk-wrong"):
        with pytest.raises(InvalidApiKey):
            keyring.identify(bearer(key), None, NOW)
    told = [(line["reason"], line.get("key_id")) for line in logged if "reason" in line]
    assert told == [("expired", "acme-1"), ("revoked", "beta-1"), ("unknown", None)]
    text = repr(logged)
    for key in (FILE_KEY, STORED_KEY, "sk-wrong"):
        assert key not in text
        assert sha(key) not in text


def test_whose_a_key_is_can_be_asked_without_a_word_in_the_log(logged: Lines) -> None:
    keyring = Keyring([organization(expires="2001-01-01")], stored=True)
    keyring.refresh_from(StoredKeys.of([row()]))
    before = len(logged)
    stored = keyring.known(None, STORED_KEY, NOW)
    assert stored is not None
    assert stored.organization == "beta"
    for authorization in (bearer(FILE_KEY), bearer("sk-wrong"), bearer("x" * 600), "Basic x", None):
        assert keyring.known(authorization, None, NOW) is None
    assert len(logged) == before


def test_refusals_beyond_a_number_a_minute_are_counted(logged: Lines) -> None:
    keyring = Keyring([organization()], audit=KeyAudit(refusals_a_minute=3))
    for _ in range(10):
        with pytest.raises(InvalidApiKey):
            keyring.identify(bearer("sk-wrong"), None, NOW)
    assert events(logged).count("key_refused") == 3
    keyring.tell_unlogged(NOW + 59)
    assert "keys_refused_unlogged" not in events(logged)
    keyring.tell_unlogged(NOW + 61)
    assert logged[-1]["event"] == "keys_refused_unlogged"
    assert logged[-1]["count"] == 7


def test_neither_keys_nor_hashes_are_in_a_repr() -> None:
    keyring = Keyring([organization()], stored=True)
    stored = StoredKeys.of([row()])
    keyring.refresh_from(stored)
    assert repr(digest_of(STORED_KEY)) not in repr(stored) + repr(keyring)
