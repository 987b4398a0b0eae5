"""What must hold between several values of a file."""

from __future__ import annotations

from typing import Any

import pytest

from router.config.checks import cross_check

ALL = [{"name": "a", "models": ["org/big", "org/small"]}]


def told(**tree: Any) -> list[tuple[str, str]]:
    tree.setdefault("services", [{"name": "a"}])
    return [(".".join(map(str, at)), message) for at, message in cross_check(tree)]


@pytest.mark.parametrize(
    ("tree", "at"),
    [
        ({"services": [{"name": "a"}, {"name": "a"}]}, "services.1.name"),
        ({"organizations": [{"id": "a"}, {"id": "a"}]}, "organizations.1.id"),
        (
            {"organizations": [{"keys": [{"id": "k"}]}, {"keys": [{"id": "k"}]}]},
            "organizations.1.keys.0.id",
        ),
        (
            {"organizations": [{"keys": [{"sha256": "aB"}, {"sha256": "Ab"}]}]},
            "organizations.0.keys.1.sha256",
        ),
        ({"routes": [{"path": "/a"}, {"path": "/a"}]}, "routes.1.path"),
    ],
)
def test_what_must_be_unique_is_told_at_its_second_place(tree: dict[str, Any], at: str) -> None:
    assert [place for place, _ in told(**tree)] == [at]


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/mine", "/health", "/health/live", "/chat/completions", "/score", "/explain",
     "/api/x", "/openapi.json", "/models", "/dashboard", "/docs", "/stats", "/services",
     "/metrics"],
)  # fmt: skip
def test_a_route_may_not_take_a_path_of_the_routers_own(path: str) -> None:
    assert [at for at, _ in told(routes=[{"path": path}])] == ["routes.0.path"]


@pytest.mark.parametrize("path", ["/text2sql", "/healthy", "/chat", "/v2/chat"])
def test_a_route_may_take_any_other_path(path: str) -> None:
    assert told(routes=[{"path": path}]) == []


def test_a_route_goes_to_an_inference_path_of_an_engine() -> None:
    problems = told(routes=[{"path": "/a", "upstream_path": "/v1/chat/completion"}])
    assert problems == [
        (
            "routes.0.upstream_path",
            "no inference path of an engine; write one such as /v1/chat/completions",
        )
    ]


def test_an_alias_names_a_model_that_a_service_has() -> None:
    assert told(services=ALL, aliases={"x": "org/big"}) == []
    assert told(services=ALL, aliases={"x": "big"}) == [
        ("aliases.x", "no service has the model 'big'; did you mean org/big?")
    ]
    assert told(services=ALL, aliases={"x": "zzz"}) == [
        ("aliases.x", "no service has the model 'zzz'; the models are: org/big, org/small")
    ]


@pytest.mark.parametrize(
    "tree",
    [
        {"services": [*ALL, {"name": "b"}]},
        {"services": ALL, "discovery": {"docker": {"enabled": True}}},
        {"services": ALL, "discovery": {"files": "services.d"}},
    ],
)
def test_an_unknown_model_passes_where_more_models_may_turn_up(tree: dict[str, Any]) -> None:
    assert told(**tree, aliases={"x": "zzz"}, routes=[{"path": "/a", "model": "zzz"}]) == []


def test_an_alias_is_neither_a_model_nor_itself_nor_a_chain() -> None:
    problems = told(
        services=ALL, aliases={"org/big": "org/small", "x": "x", "y": "z", "z": "org/big"}
    )
    assert problems == [
        ("aliases.org/big", "a model of a service has this name; write another alias"),
        ("aliases.x", "an alias of itself; write the name of a model"),
        ("aliases.y", "an alias of an alias; write its model: org/big"),
    ]


def test_a_route_names_a_model_or_an_alias() -> None:
    routes = [{"path": f"/{n}", "model": m} for n, m in enumerate(["org/big", "x", "org/bug"])]
    assert told(services=ALL, aliases={"x": "org/big"}, routes=routes) == [
        ("routes.2.model", "no service has the model 'org/bug'; did you mean org/big?")
    ]


def keys(*models: str) -> list[dict[str, Any]]:
    return [{"id": "acme", "keys": [{"id": "k", "models": list(models)}]}]


def test_a_key_that_can_use_nothing_is_told_its_models_full_names() -> None:
    scoped = keys("fast", "small", "later")
    assert told(services=ALL, aliases={"fast": "org/big"}, organizations=scoped) == [
        ("organizations.0.keys.0.models.0", "a key's models are full names; write org/big"),
        ("organizations.0.keys.0.models.1", "a key's models are full names; write org/small"),
    ]


@pytest.mark.parametrize("fitting", ["*", "org/*", "*big", "o*b*g", "org/big"])
def test_an_alias_in_a_scope_passes_where_another_pattern_lets_a_model_in(fitting: str) -> None:
    scoped = keys("fast", "small", fitting)
    assert told(services=ALL, aliases={"fast": "org/big"}, organizations=scoped) == []


@pytest.mark.parametrize("other", ["org/bi?", "org/[b]ig", "ORG/*", "org/big/*"])
def test_a_pattern_that_fits_no_model_lets_nothing_in(other: str) -> None:
    problems = told(services=ALL, organizations=keys("small", other))
    assert [at for at, _ in problems] == ["organizations.0.keys.0.models.0"]


def test_one_keys_patterns_let_nothing_in_for_another() -> None:
    organizations = [{"keys": [{"models": ["org/*"]}, {"models": ["small"]}]}]
    problems = told(services=ALL, organizations=organizations)
    assert [at for at, _ in problems] == ["organizations.0.keys.1.models.0"]


def test_a_scope_that_only_names_models_of_a_later_time_passes() -> None:
    assert told(services=ALL, organizations=keys("later")) == []


@pytest.mark.parametrize(
    "tree",
    [
        {"services": [*ALL, {"name": "b"}]},
        {"services": ALL, "discovery": {"docker": {"enabled": True}}},
        {"services": ALL, "discovery": {"files": "services.d"}},
    ],
)
def test_where_more_models_may_turn_up_an_alias_or_short_name_may_be_a_full_one(
    tree: dict[str, Any],
) -> None:
    assert told(**tree, aliases={"fast": "x"}, organizations=keys("small", "fast")) == []


@pytest.mark.parametrize("discovery", [None, {}, {"docker": {"enabled": False}}, {"files": None}])
def test_without_discovery_there_must_be_services(discovery: object) -> None:
    assert [at for at, _ in told(services=[], discovery=discovery)] == ["services"]


@pytest.mark.parametrize("discovery", [{"docker": {"enabled": True}}, {"files": "services.d"}])
def test_with_discovery_there_may_be_no_services(discovery: object) -> None:
    assert told(services=[], discovery=discovery) == []


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {}, {"a": 1}, [[]], [None]])
def test_a_value_of_a_wrong_type_is_passed_over(value: Any) -> None:
    for key in ("services", "organizations", "routes", "aliases", "discovery"):
        list(cross_check({key: value}))
