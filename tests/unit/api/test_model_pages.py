"""`GET /v1/models`: the union over healthy services, as far as the key's scope goes."""

from __future__ import annotations

import json

import pytest

from router.access.identity import ANONYMOUS, Identity
from router.access.scope import ModelScope
from router.api.models import ModelPages
from router.errors import ModelNotAllowed, ModelNotFound, NoHealthyBackend
from unit.api.asking import asking
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, card, named, spec

QWEN, LLAMA = "Qwen/Qwen2.5-7B", "meta/Llama-3"


def scoped(*patterns: str) -> Identity:
    return Identity("acme", "acme-1", 0, ModelScope(patterns))


def fleet_of_two(**aliases: str):
    fleet = build(spec("a", (QWEN,)), spec("b", (QWEN, LLAMA)), aliases=aliases)
    fleet.set_health(named(fleet, "a"), HEALTHY, [card(QWEN, max_model_len=512, root="/x")])
    return fleet


def listed(fleet, identity=ANONYMOUS) -> list[dict]:
    answer = ModelPages(fleet).list(asking("/v1/models"), identity)
    page = json.loads(answer.body)
    assert page["object"] == "list"
    return page["data"]


def one(fleet, model: str, identity=ANONYMOUS) -> dict:
    return json.loads(ModelPages(fleet).one(asking(f"/v1/models/{model}"), identity).body)


def test_each_model_is_listed_once_aliases_included():
    rows = listed(fleet_of_two(**{"gpt-4o": QWEN}))
    assert sorted(row["id"] for row in rows) == sorted([QWEN, LLAMA, "gpt-4o"])


def test_a_row_is_the_engines_own():
    (row,) = [row for row in listed(fleet_of_two()) if row["id"] == QWEN]
    assert (row["max_model_len"], row["root"], row["object"]) == (512, "/x", "model")


def test_every_row_has_the_fields_of_the_contract():
    for row in listed(fleet_of_two(**{"gpt-4o": QWEN})):
        assert row.keys() >= {"id", "object", "created", "owned_by"}
        assert isinstance(row["created"], int)


def test_an_alias_has_its_own_name_and_its_targets_row():
    row = one(fleet_of_two(**{"gpt-4o": QWEN}), "gpt-4o")
    assert (row["id"], row["max_model_len"]) == ("gpt-4o", 512)


def test_what_nothing_healthy_serves_is_not_listed():
    fleet = fleet_of_two(llama=LLAMA)
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    assert [row["id"] for row in listed(fleet)] == [QWEN]


def test_an_alias_of_nothing_is_not_listed():
    assert "ghost" not in [row["id"] for row in listed(fleet_of_two(ghost="gone"))]


def test_a_model_is_listed_once_where_an_alias_has_its_name():
    rows = listed(fleet_of_two(**{LLAMA: QWEN}))
    assert [row["id"] for row in rows].count(LLAMA) == 1


def test_what_the_key_may_not_use_is_not_listed():
    rows = listed(fleet_of_two(**{"gpt-4o": QWEN, "llama": LLAMA}), scoped("Qwen/*"))
    assert sorted(row["id"] for row in rows) == sorted([QWEN, "gpt-4o"])


@pytest.mark.parametrize("asked", [QWEN, "Qwen2.5-7B", "Qwen%2FQwen2.5-7B", QWEN + "?a=b"])
def test_one_model_is_found_by_any_name_of_it(asked):
    assert (one(fleet_of_two(), asked))["max_model_len"] == 512


def test_an_unknown_model_is_not_found():
    with pytest.raises(ModelNotFound):
        one(fleet_of_two(), "nope")


def test_a_model_out_of_scope_is_not_allowed():
    with pytest.raises(ModelNotAllowed):
        one(fleet_of_two(), LLAMA, scoped("Qwen/*"))


def test_a_model_that_nothing_healthy_serves_is_503():
    fleet = fleet_of_two()
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    with pytest.raises(NoHealthyBackend) as caught:
        one(fleet, LLAMA)
    assert "Retry-After" in dict(caught.value.headers())
