"""What a model's name means: exactly, as an alias, as a short name, in this order."""

from __future__ import annotations

import pytest

from router.config.settings import EjectionSettings
from router.errors import ModelAmbiguous, ModelLoading, ModelNotFound, NoHealthyBackend
from router.fleet.catalog import Catalog, build_catalog
from unit.fleet.fleet_fakes import build, card, named, spec

QWEN, LLAMA = "Qwen/Qwen2.5-7B", "meta/Llama-3"


def catalog(*models: str, aliases=None) -> Catalog:
    return build(spec("a", models), aliases=aliases).catalog


def test_a_full_name_is_itself():
    assert catalog(QWEN, LLAMA).resolve(QWEN) == QWEN


def test_an_alias_is_its_target():
    assert catalog(QWEN, aliases={"gpt-4o": QWEN}).resolve("gpt-4o") == QWEN


def test_a_short_name_is_the_one_model_that_ends_so():
    assert catalog(QWEN, LLAMA).resolve("Llama-3") == LLAMA


def test_a_short_name_is_what_follows_the_last_slash():
    models = catalog("models/hub/tiny")
    assert models.resolve("tiny") == "models/hub/tiny"
    with pytest.raises(ModelNotFound):
        models.resolve("hub/tiny")


def test_an_exact_name_comes_before_an_alias_of_it():
    assert catalog("gpt-4o", QWEN, aliases={"gpt-4o": QWEN}).resolve("gpt-4o") == "gpt-4o"


def test_an_exact_name_comes_before_a_short_name():
    assert catalog("one/twin", "twin").resolve("twin") == "twin"


def test_an_alias_comes_before_an_ambiguous_short_name():
    models = catalog("one/twin", "two/twin", aliases={"twin": "two/twin"})
    assert models.resolve("twin") == "two/twin"


def test_a_short_name_of_several_models_is_ambiguous_and_lists_them():
    with pytest.raises(ModelAmbiguous) as caught:
        catalog("one/twin", "two/twin").resolve("twin")
    assert caught.value.status == 409
    assert "one/twin, two/twin" in caught.value.message


def test_one_model_on_two_services_is_not_ambiguous():
    fleet = build(spec("a", (QWEN,)), spec("b", (QWEN,)))
    assert fleet.catalog.resolve("Qwen2.5-7B") == QWEN
    assert [service.name for service in fleet.catalog.members[QWEN]] == ["a", "b"]


@pytest.mark.parametrize("name", ["", "nope", "Qwen", "Qwen/", "qwen/qwen2.5-7b", "/Qwen2.5-7B"])
def test_an_unknown_name_is_not_found(name):
    with pytest.raises(ModelNotFound) as caught:
        catalog(QWEN).resolve(name)
    assert (caught.value.status, caught.value.param) == (404, "model")


@pytest.mark.parametrize("model", ["x/", "/x", "/"])
def test_a_model_with_nothing_beside_its_slash_has_no_short_name(model):
    assert catalog(model).short_names == {}


def test_a_long_unknown_name_is_not_repeated_whole():
    with pytest.raises(ModelNotFound) as caught:
        catalog(QWEN).resolve("x" * 10_000)
    assert len(caught.value.message) < 400


def test_an_unknown_name_is_loading_while_a_service_has_yet_to_tell_its_models():
    fleet = build(spec("a", (QWEN,)), spec("b", None), healthy=False)
    with pytest.raises(ModelLoading) as caught:
        fleet.catalog.resolve("new")
    assert caught.value.headers() == [("Retry-After", "5")]


def test_a_known_name_is_resolved_while_another_service_is_loading():
    assert build(spec("a", (QWEN,)), spec("b", None), healthy=False).catalog.resolve(QWEN) == QWEN


def test_an_unknown_name_is_not_found_once_all_have_told():
    fleet = build(spec("b", None), healthy=False)
    fleet.set_health(named(fleet, "b"), named(fleet, "b").health, [card(LLAMA)])
    with pytest.raises(ModelNotFound):
        fleet.catalog.resolve("new")


def test_an_alias_of_what_no_service_has_told_of_may_work_again():
    """The configuration names it: 503, so that clients come back, and no 404."""
    with pytest.raises(NoHealthyBackend) as caught:
        catalog(QWEN, aliases={"gpt-4o": LLAMA}).resolve("gpt-4o")
    assert caught.value.status == 503


def test_a_model_that_the_configuration_names_is_never_unknown():
    aliased = catalog(QWEN, aliases={"gpt-4o": LLAMA})
    with pytest.raises(NoHealthyBackend):
        aliased.resolve(LLAMA)
    with pytest.raises(NoHealthyBackend):
        build_catalog([], {}, [LLAMA]).resolve(LLAMA)


def test_new_routes_count_at_once():
    fleet = build(spec("a", (QWEN,)))
    settings = {"policy": fleet._policy, "aliases": {}, "ejection": EjectionSettings()}
    fleet.configure(**settings, routed=[LLAMA])
    with pytest.raises(NoHealthyBackend):
        fleet.catalog.resolve(LLAMA)
    fleet.configure(**settings)
    with pytest.raises(ModelNotFound):
        fleet.catalog.resolve(LLAMA)


def test_an_alias_of_what_is_still_starting_is_said_to_be_loading():
    fleet = build(spec("a", None), healthy=False, aliases={"gpt-4o": QWEN})
    with pytest.raises(ModelLoading):
        fleet.catalog.resolve("gpt-4o")


def test_a_model_that_nothing_healthy_serves_still_resolves():
    assert build(spec("a", (QWEN,)), healthy=False).catalog.resolve("Qwen2.5-7B") == QWEN


def test_a_model_goes_with_its_last_service():
    fleet = build(spec("a", (QWEN,)), spec("b", (LLAMA,)))
    fleet.publish("yaml", [spec("b", (LLAMA,))])
    with pytest.raises(ModelNotFound):
        fleet.catalog.resolve(QWEN)


def test_a_draining_service_is_no_member():
    fleet = build(spec("a"))
    fleet.take("m")
    fleet.publish("yaml", [])
    assert fleet.catalog.members == {}


def test_new_aliases_count_at_once():
    fleet = build(spec("a", (QWEN,)))
    fleet.configure(policy=fleet._policy, aliases={"gpt-4o": QWEN}, ejection=EjectionSettings())
    assert fleet.catalog.resolve("gpt-4o") == QWEN
