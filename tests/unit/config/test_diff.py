"""What a reload would change: told completely, by name, and without a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config import Settings, service_specs
from router.config.diff import REPLACING, Diff, diff, diff_redacted
from router.config.redacted import redacted
from router.config.settings import EjectionSettings, ServiceSettings
from router.fleet.fleet import Fleet
from router.metrics import Metrics
from router.routing import POLICIES

SHA_A, SHA_B = "a" * 64, "b" * 64


def settings(**tree: Any) -> Settings:
    return Settings.model_validate(tree)


def service(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "url": f"http://{name}:8000", **more}


def organization(name: str = "acme", **more: Any) -> dict[str, Any]:
    return {"id": name, **more}


def key(name: str = "k", **more: Any) -> dict[str, Any]:
    return {"id": name, "sha256": SHA_A, **more}


def lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return diff(settings(**old), settings(**new)).lines()


def test_equal_settings_differ_in_nothing():
    tree = {
        "services": [service(api_key="k", models=["m"])],
        "organizations": [organization(keys=[key(expires="2027-01-01")])],
        "aliases": {"x": "m"},
        "routes": [{"path": "/r", "model": "m"}],
    }
    assert diff(settings(**tree), settings(**tree)) == Diff()
    assert lines(tree, tree) == []


@pytest.mark.parametrize(
    ("section", "old", "new", "told"),
    [
        ("server", {}, {"max_body_mb": 64}, "server.max_body_mb 32 -> 64"),
        (
            "server",
            {},
            {"status_allow": []},
            'server.status_allow ["127.0.0.0/8", "::1/128"] -> []',
        ),
        ("health", {"interval_s": 2.5}, {}, "health.interval_s 2.5 -> 30"),
        ("ejection", {}, {"max_s": 60.0}, "ejection.max_s 300 -> 60"),
        ("limits", {}, {"per_ip": {"burst": 7}}, "limits.per_ip.burst 100 -> 7"),
        ("routing", {}, {"policy": "round_robin"}, 'routing.policy "least_load" -> "round_robin"'),
        ("discovery", {}, {"files": "d"}, 'discovery.files none -> "d"'),
        ("discovery", {}, {"docker": {"enabled": True}}, "discovery.docker.enabled false -> true"),
    ],
)
def test_a_value_of_a_section_is_told_with_its_key_old_and_new(section, old, new, told):
    assert lines({section: old}, {section: new}) == [told]


def test_the_same_number_written_in_another_way_is_no_change():
    assert lines({"health": {"interval_s": 30}}, {"health": {"interval_s": 30.0}}) == []


# -- services ----------------------------------------------------------------------------------


def test_services_are_told_as_added_removed_changed_and_replaced():
    old = [service("gone"), service("same"), service("light"), service("moved")]
    new = [
        service("same"),
        service("light", weight=3, gpu=1),
        {"name": "moved", "url": "http://elsewhere:1"},
        service("new"),
    ]
    assert lines({"services": old}, {"services": new}) == [
        "services.gone: removed",
        'services.light: changed (gpu none -> "1", weight 1 -> 3)',
        'services.moved: replaced (url "http://moved:8000" -> "http://elsewhere:1")',
        "services.new: added",
    ]


def test_another_order_is_no_change():
    rows = [service("a"), service("b")]
    assert lines({"services": rows}, {"services": rows[::-1]}) == []


ANOTHER = {
    "url": "http://other:9",
    "models": ("m",),
    "api_key": "secret",
    "group": "g",
    "gpu": "1",
    "weight": 2,
    "max_concurrency": 4,
    "health_path": "/ready",
}


@pytest.mark.parametrize("name", [n for n in ServiceSettings.model_fields if n != "name"])
async def test_replaced_is_what_the_fleet_starts_anew(name):
    """Whatever the diff calls `changed` goes on in place; the two agree on every field."""
    old = settings(services=[service()])
    new = settings(services=[service() | {name: ANOTHER[name]}])
    fleet = Fleet(
        Metrics("test"), policy=POLICIES["least_load"], aliases={}, ejection=EjectionSettings()
    )
    fleet.publish("yaml", service_specs(old))
    (before,) = fleet.services
    fleet.publish("yaml", service_specs(new))
    (after,) = (each for each in fleet.services if not each.removed)
    (item,) = diff(old, new).services
    assert item.fate == ("changed" if after is before else "replaced")
    assert (name in REPLACING) == (item.fate == "replaced")


# -- organizations, keys, routes, aliases ------------------------------------------------------


def test_an_organization_and_its_keys_are_told_each_for_itself():
    old = {
        "organizations": [
            organization("acme", daily_tokens=10, keys=[key("one"), key("two", sha256=SHA_B)])
        ]
    }
    new = {
        "organizations": [
            organization("acme", daily_tokens=None, keys=[key("one", expires="2027-01-01")]),
            organization("umbrella", keys=[key("three", sha256=SHA_B)]),
        ]
    }
    assert lines(old, new) == [
        "organizations.acme: changed (daily_tokens 10 -> none)",
        "organizations.umbrella: added",
        'organizations.acme.keys.one: changed (expires none -> "2027-01-01T00:00:00Z")',
        "organizations.acme.keys.two: removed",
        "organizations.umbrella.keys.three: added",
    ]


def test_an_organization_that_goes_takes_its_keys_with_it():
    old = {"organizations": [organization(keys=[key()])]}
    change = diff(settings(**old), settings())
    assert [str(item) for item in change.keys] == ["organizations.acme.keys.k: removed"]


def test_routes_are_told_by_path_and_aliases_by_alias():
    old = {"routes": [{"path": "/a", "model": "m"}], "aliases": {"x": "m", "y": "m"}}
    new = {"routes": [{"path": "/a", "model": "n"}], "aliases": {"x": "n", "z": "m"}}
    assert lines(old, new) == [
        'routes./a: changed (model "m" -> "n")',
        'aliases.x: changed (model "m" -> "n")',
        "aliases.y: removed",
        "aliases.z: added",
    ]


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"server": {"host": "127.0.0.1"}}, "server.host"),
        ({"server": {"port": 9}}, "server.port"),
        ({"ledger": {"url": "memory://"}}, "ledger.url"),
    ],
)
def test_what_needs_a_restart_is_refused_with_its_reason(tree, name):
    change = diff(settings(), settings(**tree))
    (refusal,) = change.refused
    assert refusal.key == name
    assert "needs a restart" in refusal.reason
    (line,) = change.lines()
    assert "refused, needs a restart" in line


@pytest.mark.parametrize("tree", [{"server": {"max_body_mb": 1}}, {"services": [service()]}])
def test_nothing_else_is_refused(tree):
    change = diff(settings(), settings(**tree))
    assert not change.is_empty
    assert change.refused == ()


def test_a_pinned_key_neither_differs_nor_is_refused():
    old, new = redacted(settings(server={"port": 1})), redacted(settings(server={"port": 2}))
    assert diff_redacted(old, new, pinned=["server.port"]).is_empty


# -- secrets -----------------------------------------------------------------------------------


def secretive(api_key: str, sha256: str, url: str) -> Settings:
    return settings(
        server={"admin_key_sha256": sha256},
        ledger={"url": url},
        services=[service(api_key=api_key)],
        organizations=[organization(keys=[key(sha256=sha256)])],
    )


def test_a_secret_is_told_as_changed_and_never_shown():
    old = secretive("hunter2", SHA_A, "sqlite:///one.db")
    new = secretive("hunter3", SHA_B, "sqlite:///two.db")
    change = diff(old, new)
    told = change.lines()
    assert told[0] == "server.admin_key_sha256 changed"
    assert told[1].startswith("ledger.url changed: refused, ")
    assert told[2:] == [
        "services.a: replaced (api_key changed)",
        "organizations.acme.keys.k: changed (sha256 changed)",
    ]
    for secret in ("hunter", SHA_A, SHA_B, "one.db", "two.db"):
        assert secret not in repr(change)


def test_the_redacted_form_holds_no_secret_and_is_plain_json():
    form = redacted(secretive("hunter2", SHA_A, "sqlite:///one.db"))
    text = json.dumps(form)
    for secret in ("hunter2", SHA_A, "one.db"):
        assert secret not in text
    assert json.loads(text) == form


def test_a_secret_that_appears_is_a_change():
    old, new = {"services": [service()]}, {"services": [service(api_key="k")]}
    assert lines(old, new) == ["services.a: replaced (api_key changed)"]


def test_a_long_value_is_cut_in_what_is_told():
    (line,) = lines(
        {"services": [service(models=["m"])]},
        {"services": [service(models=[f"model-{n}" for n in range(1000)])]},
    )
    assert len(line) < 500
