"""What labels make of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.discovery.labels import Member, Rejected, View, judge
from router.model import ServiceSpec
from unit.discovery.engine_fakes import NETWORK, container

VIEW = View(NETWORK)


def no_key(path: Path) -> str:
    raise AssertionError(f"{path} was read")


def member(view: View = VIEW, read_key=no_key, **more) -> Member:
    found = judge(container(**more), view, read_key)
    assert isinstance(found, Member), found
    return found


def problems(view: View = VIEW, read_key=no_key, **more) -> dict[str, str]:
    """What is wrong, by label."""
    found = judge(container(**more), view, read_key)
    assert isinstance(found, Rejected), found
    return {each.label: each.message for each in found.problems}


def test_without_labels_of_its_own_everything_has_its_default():
    assert member().spec == ServiceSpec(
        name="c1", url="http://172.18.0.2:8000", source="docker", group="c1"
    )


def test_every_label_is_taken_over():
    labels = {
        "router.name": "chat-1",
        "router.port": "8001",
        "router.models": "Qwen/Qwen2.5-7B-Instruct, tiny ,, tiny",
        "router.group": "chat",
        "router.weight": "3",
        "router.max-concurrency": "6",
        "router.gpu": "1",
        "router.health-path": "/ping",
        "router.api-key-file": "/run/secrets/chat",
    }
    read = {Path("/run/secrets/chat"): "sk-engine"}
    assert member(labels=labels, read_key=read.__getitem__).spec == ServiceSpec(
        name="chat-1",
        url="http://172.18.0.2:8001",
        source="docker",
        models=("Qwen/Qwen2.5-7B-Instruct", "tiny"),
        api_key="sk-engine",
        group="chat",
        gpu="1",
        weight=3,
        max_concurrency=6,
        health_path="/ping",
    )


def test_the_name_is_the_compose_service_unless_labelled():
    compose = {"com.docker.compose.service": "chat"}
    assert member(labels=compose).spec.name == "chat"
    assert member(labels={**compose, "router.name": "mine"}).spec.name == "mine"


def test_an_empty_label_counts_as_none():
    labels = dict.fromkeys(("router.name", "router.port", "router.models", "router.weight"), " ")
    assert member(labels=labels).spec == member().spec


def test_the_health_path_is_that_of_the_settings_unless_labelled():
    assert member(View(NETWORK, health_path="/alive")).spec.health_path == "/alive"


@pytest.mark.parametrize("value", ["true", "True", " TRUE "])
def test_true_in_any_case_enables(value):
    assert member(labels={"router.enable": value}).spec.name == "c1"


@pytest.mark.parametrize("value", ["false", "False", ""])
def test_what_does_not_ask_is_nothing(value):
    assert (
        judge(container(labels={"router.enable": value, "router.port": "x"}), VIEW, no_key) is None
    )


@pytest.mark.parametrize("out", ["exited", "paused", "restarting", "unhealthy"])
def test_what_is_not_up_is_nothing(out):
    assert judge(container(out=out), VIEW, no_key) is None


# -- where it is reached -------------------------------------------------------------------------


def test_from_outside_it_is_reached_at_its_address_on_the_network():
    addresses = {"other": "10.0.0.9", NETWORK: "172.18.0.5"}
    assert member(addresses=addresses).spec.url == "http://172.18.0.5:8000"


def test_from_inside_the_network_it_is_reached_by_its_name():
    assert member(View(NETWORK, inside=True)).spec.url == "http://c1:8000"


def test_on_dockers_own_bridge_names_do_not_resolve_so_the_address_is_taken():
    view = View("bridge", inside=True)
    assert member(view, addresses={"bridge": "172.17.0.2"}).spec.url == "http://172.17.0.2:8000"


def test_an_address_of_ipv6_is_taken():
    assert member(addresses={NETWORK: "[fd00::2]"}).spec.url == "http://[fd00::2]:8000"


def test_a_container_on_another_network_is_left_out_and_the_remedy_told():
    told = problems(addresses={"theirs": "10.0.0.2"})
    assert list(told) == [f"network {NETWORK}"]
    assert "(theirs)" in told[f"network {NETWORK}"]


def test_a_container_without_an_address_is_left_out():
    assert "no address" in problems(addresses={NETWORK: ""})[f"network {NETWORK}"]


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("router.enable", "yes", "must be true or false (it is 'yes')"),
        ("router.port", "eighty", "must be a whole number (it is 'eighty')"),
        ("router.port", "80.5", "must be a whole number (it is '80.5')"),
        ("router.port", "0", "must be 1 to 65535 (it is 0)"),
        ("router.port", "65536", "must be 1 to 65535 (it is 65536)"),
        ("router.port", "-1", "must be 1 to 65535 (it is -1)"),
        ("router.weight", "heavy", "must be a whole number (it is 'heavy')"),
        ("router.weight", "0", "must be at least 1 (it is 0)"),
        ("router.max-concurrency", "0", "must be at least 1 (it is 0)"),
        ("router.name", "my chat", "must be 1 to 64 of letters"),
        ("router.group", "a/b", "must be 1 to 64 of letters"),
        ("router.models", "a b", "must be 1 to 256 printable characters"),
        ("router.models", " , ", "must have at least 1"),
        ("router.health-path", "health", "write one such as /health"),
        ("router.gpu", "g" * 65, "must have at most 64"),
        ("router.api-key-file", "chat_key", "must be an absolute path"),
    ],
)
def test_a_bad_label_is_named_with_what_would_be_right(label, value, message):
    told = problems(labels={label: value})
    assert list(told) == [label]
    assert message in told[label]


def test_everything_that_is_wrong_is_told_at_once():
    labels = {"router.port": "x", "router.weight": "0", "router.name": "-"}
    assert set(problems(labels=labels)) == set(labels)


def test_a_key_that_cannot_be_read_is_told_without_a_guess():
    def read(path: Path) -> str:
        raise ValueError(f"the file {path} cannot be read")

    labels = {"router.api-key-file": "/run/secrets/chat"}
    assert problems(labels=labels, read_key=read) == {
        "router.api-key-file": "the file /run/secrets/chat cannot be read"
    }


def test_a_key_that_no_header_can_carry_is_told_and_not_shown():
    labels = {"router.api-key-file": "/run/secrets/chat"}
    told = problems(labels=labels, read_key=lambda _: "two words")
    assert list(told) == ["router.api-key-file"]
    assert "two words" not in str(told)


def test_a_label_that_nobody_knows_keeps_nothing_from_serving():
    found = member(labels={"router.wieght": "3", "router.zzz": "1", "traefik.enable": "true"})
    assert [str(each).partition(";")[0] for each in found.remarks] == [
        "router.wieght: unknown label",
        "router.zzz: unknown label",
    ]
    assert "did you mean router.weight?" in found.remarks[0].message


# -- the gpu -------------------------------------------------------------------------------------


def test_the_gpu_is_that_of_the_container_unless_labelled():
    assert member(gpu="1,2").spec.gpu == "1,2"
    assert member(gpu="1,2", labels={"router.gpu": "rack-7"}).spec.gpu == "rack-7"
