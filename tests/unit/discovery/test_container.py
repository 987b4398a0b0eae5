"""From the engine's JSON to small frozen values."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from router.discovery.container import (
    Container,
    ContainerEvent,
    Fate,
    own_ids,
    read_container,
    read_event,
)

ID = "ab" * 32


def inspected(**state: Any) -> dict[str, Any]:
    """As Docker 20.10 answers, less what nobody reads."""
    return {
        "Id": ID,
        "Created": "2026-11-21T06:01:08.490029565Z",
        "Name": "/vllm-chat",
        "State": {
            "Status": "running",
            "Running": True,
            "Paused": False,
            "Restarting": False,
            "StartedAt": "2026-11-21T06:01:08.72484234Z",
            **state,
        },
        "Config": {"Labels": {"router.enable": "true"}, "Env": ["PATH=/bin"], "Hostname": "abab"},
        "HostConfig": {"DeviceRequests": None},
        "NetworkSettings": {
            "Networks": {"inference-network": {"IPAddress": "172.18.0.2", "Aliases": ["abab"]}}
        },
    }


def test_what_counts_is_taken_from_an_inspection():
    assert read_container(inspected()) == Container(
        id=ID,
        name="vllm-chat",
        labels={"router.enable": "true"},
        addresses={"inference-network": "172.18.0.2"},
        started_at=1795240868_724842340,
        created="2026-11-21T06:01:08.490029565Z",
    )


@pytest.mark.parametrize(
    ("state", "out"),
    [
        ({}, None),
        ({"Running": False}, "exited"),
        ({"Restarting": True}, "restarting"),
        ({"Paused": True}, "paused"),
        ({"Health": {"Status": "unhealthy"}}, "unhealthy"),
        ({"Health": {"Status": "starting"}}, None),
        ({"Health": {"Status": "healthy"}}, None),
        ({"Health": None}, None),
    ],
)
def test_why_nothing_may_be_sent_to_it(state, out):
    assert read_container(inspected(**state)).out == out


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("", 0),
        ("yesterday", 0),
    ],
)
def test_a_start_is_told_in_nanoseconds(text, nanoseconds):
    assert read_container(inspected(StartedAt=text)).started_at == nanoseconds


@pytest.mark.parametrize(
    ("requests", "env", "gpu"),
    [
        (None, [], None),
        ([{"DeviceIDs": ["1"], "Capabilities": [["gpu"]]}], [], "1"),
        ([{"DeviceIDs": ["0", "2"], "Capabilities": [["gpu"]]}], [], "0,2"),
        ([{"Driver": "nvidia", "DeviceIDs": ["3"]}], [], "3"),
        ([{"Count": -1, "Capabilities": [["gpu", "compute"]]}], [], "all"),
        ([{"Count": 2, "Capabilities": [["gpu"]]}], ["NVIDIA_VISIBLE_DEVICES=all"], None),
        ([{"Driver": "cdi", "DeviceIDs": ["x"]}], ["NVIDIA_VISIBLE_DEVICES=1"], "1"),
        ([{"DeviceIDs": ["1"], "Capabilities": [["gpu"]]}], ["NVIDIA_VISIBLE_DEVICES=all"], "1"),
        (None, ["NVIDIA_VISIBLE_DEVICES=2"], "2"),
        (None, ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=2"], "2"),
        (None, ["NVIDIA_VISIBLE_DEVICES=void"], None),
        (None, ["NVIDIA_VISIBLE_DEVICES="], None),
        (None, ["NVIDIA_VISIBLE_DEVICES=" + "9" * 201], None),
        (None, ["NVIDIA_VISIBLE_DEVICES=1\n2"], None),
    ],
)
def test_its_gpu_is_that_of_the_device_request_or_else_of_the_variable(requests, env, gpu):
    raw = inspected()
    raw["HostConfig"]["DeviceRequests"] = requests
    raw["Config"]["Env"] = env
    assert read_container(raw).gpu == gpu


def test_what_the_engine_leaves_empty_is_empty():
    raw = inspected()
    raw["Config"] = {"Labels": None, "Env": None}
    raw["NetworkSettings"] = {"Networks": None}
    found = read_container(raw)
    assert (found.labels, found.addresses, found.gpu) == ({}, {}, None)


def test_an_address_of_ipv6_alone_is_written_as_in_a_url():
    raw = inspected()
    raw["NetworkSettings"]["Networks"] = {"n": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}
    assert read_container(raw).addresses == {"n": "[fd00::2]"}


@pytest.mark.parametrize("raw", [{}, {"Id": 1}, {**inspected(), "State": "up"}])
def test_what_is_no_inspection_is_refused(raw):
    with pytest.raises(msgspec.ValidationError):
        read_container(raw)


def told(action: str, **more: Any) -> dict[str, Any]:
    attributes = {"name": "vllm-chat", "image": "i", "router.enable": "true"}
    actor = {"ID": ID, "Attributes": attributes}
    return {"Type": "container", "Action": action, "Actor": actor, "timeNano": 17, **more}


@pytest.mark.parametrize(
    ("action", "fate"),
    [
        ("die", Fate.DIED),
        ("pause", Fate.PAUSED),
        ("health_status: unhealthy", Fate.UNHEALTHY),
        ("destroy", Fate.REMOVED),
        ("start", Fate.CHANGED),
        ("stop", Fate.CHANGED),
        ("kill", Fate.CHANGED),
        ("unpause", Fate.CHANGED),
        ("rename", Fate.CHANGED),
        ("health_status: healthy", Fate.CHANGED),
    ],
)
def test_what_an_event_says_of_its_container(action, fate):
    assert read_event(told(action)) == ContainerEvent(ID, fate, 17)


@pytest.mark.parametrize("action", ["connect", "disconnect"])
def test_an_event_of_a_network_is_one_of_the_container_in_it(action):
    actor = {"ID": "net", "Attributes": {"container": ID, "name": "inference-network"}}
    raw = {"Type": "network", "Action": action, "Actor": actor, "timeNano": 5}
    assert read_event(raw) == ContainerEvent(ID, Fate.CHANGED, 5)


@pytest.mark.parametrize(
    "raw",
    [
        told("exec_start: curl"),
        {**told("start"), "Type": "image"},
        {**told("start"), "Actor": {"ID": ID, "Attributes": {"name": "other"}}},
        {**told("start"), "Actor": {"ID": ID, "Attributes": None}},
        {"Type": "network", "Action": "create", "Actor": {"ID": "net", "Attributes": {}}},
        {"message": "it is no event"},
    ],
)
def test_an_event_of_something_else_is_passed_over(raw):
    assert read_event(raw) is None


@pytest.mark.parametrize(
    ("mountinfo", "hostname", "found"),
    [
        (f"1 2 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname", "abababababab", (ID,)),
        (f"1 2 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname", "web", (ID,)),
        ("", "0123456789ab", ("0123456789ab",)),
        ("", "web", ()),
    ],
)  # fmt: skip
def test_the_container_of_this_process_is_known_by_its_mounts_or_its_host_name(
    mountinfo, hostname, found
):
    assert own_ids(mountinfo, hostname) == found
