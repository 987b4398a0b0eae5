"""Containers and events of a Docker engine as small frozen values; its JSON ends here.

Source: Docker Engine API 1.41, `ContainerInspect` and `SystemEvents`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

ENABLE = "router.enable"
_NANO = 1_000_000_000
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NO_GPUS = {"", "void", "none"}
_MAX_GPU_CHARS = 200
_SHORT = 12

# What the stream of events is asked for; `exec_*` events of health checks alone would be many.
EVENT_FILTERS = {
    "type": ["container", "network"],
    "event": [
        "start",
        "die",
        "stop",
        "kill",
        "pause",
        "unpause",
        "health_status",
        "rename",
        "destroy",
        "connect",
        "disconnect",
    ],
}


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine tells of it.

    Attributes:
        id: 64 hexadecimal digits.
        name: without the leading slash.
        labels: all of them.
        addresses: its address on each of its networks by the network's name; empty where it has
            none.
        out: why nothing may be sent to it now: `exited`, `paused`, `restarting`, `unhealthy`;
            None: something may.
        started_at: nanoseconds since the epoch, by the engine's clock; 0: never.
        created: as the engine writes it; sorts by time.
        gpu: devices it was given, for people; None when unknown.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    addresses: Mapping[str, str]
    out: str | None = None
    started_at: int = 0
    created: str = ""
    gpu: str | None = None

    @property
    def short_id(self) -> str:
        """The identifier as `docker ps` shows it."""
        return self.id[:_SHORT]


class Fate(enum.StrEnum):
    """What an event says of a container; the values read on in "the container …"."""

    DIED = "died"
    PAUSED = "was paused"
    UNHEALTHY = "is unhealthy"
    REMOVED = "was removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something that happened to a container.

    Attributes:
        id: of the container.
        fate: anything but `CHANGED` takes it out by itself; `CHANGED` asks for a look at it.
        at: nanoseconds since the epoch, by the engine's clock.
    """

    id: str
    fate: Fate
    at: int


# -- the engine's JSON -------------------------------------------------------------------------


class _Health(msgspec.Struct, rename="pascal"):
    status: str = ""


class _State(msgspec.Struct, rename="pascal"):
    running: bool = False
    paused: bool = False
    restarting: bool = False
    started_at: str = ""
    health: _Health | None = None


class _Config(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None
    env: list[str] | None = None


class _DeviceRequest(msgspec.Struct, rename="pascal"):
    driver: str = ""
    count: int = 0
    capabilities: list[list[str]] | None = None
    device_ids: list[str] | None = msgspec.field(default=None, name="DeviceIDs")


class _HostConfig(msgspec.Struct, rename="pascal"):
    device_requests: list[_DeviceRequest] | None = None


class _Endpoint(msgspec.Struct):
    address: str = msgspec.field(default="", name="IPAddress")
    address_v6: str = msgspec.field(default="", name="GlobalIPv6Address")


class _NetworkSettings(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Endpoint] | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    host_config: _HostConfig
    network_settings: _NetworkSettings
    created: str = ""


class _Actor(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(default="", name="ID")
    attributes: dict[str, str] | None = None


class _Event(msgspec.Struct, rename="pascal"):
    type: str
    action: str
    actor: _Actor
    at: int = msgspec.field(default=0, name="timeNano")


def read_container(inspected: Mapping[str, Any]) -> Container:
    """Take what counts from `GET /containers/{id}/json`.

    Raises:
        msgspec.ValidationError: it is not such an answer.
    """
    found = msgspec.convert(inspected, _Inspected)
    networks = found.network_settings.networks or {}
    return Container(
        id=found.id,
        name=found.name.removeprefix("/"),
        labels=found.config.labels or {},
        addresses={name: _address(endpoint) for name, endpoint in networks.items()},
        out=_why_out(found.state),
        started_at=_nanoseconds(found.state.started_at),
        created=found.created,
        gpu=_gpu(found.host_config.device_requests or (), found.config.env or ()),
    )


def read_event(raw: Mapping[str, Any]) -> ContainerEvent | None:
    """Take what counts from an event; None where it concerns no container with the label.

    Those of networks do not tell the labels of the container; they count for all.
    """
    try:
        event = msgspec.convert(raw, _Event)
    except msgspec.ValidationError:
        return None
    attributes = event.actor.attributes or {}
    if event.type == "network":
        container = attributes.get("container", "")
        return ContainerEvent(container, Fate.CHANGED, event.at) if container else None
    if event.type != "container" or ENABLE not in attributes or event.action.startswith("exec_"):
        return None
    return ContainerEvent(event.actor.id, _FATES.get(event.action, Fate.CHANGED), event.at)


_FATES = {
    "die": Fate.DIED,
    "pause": Fate.PAUSED,
    "health_status: unhealthy": Fate.UNHEALTHY,
    "destroy": Fate.REMOVED,
}


def own_ids(mountinfo: str, hostname: str) -> tuple[str, ...]:
    """What may be the identifier of the container that this process runs in, likeliest first.

    Args:
        mountinfo: `/proc/self/mountinfo`: Docker mounts `…/containers/ID/hostname` and the like.
        hostname: Docker's default is the short identifier.
    """
    found = dict.fromkeys(re.findall(r"/containers/([0-9a-f]{64})/", mountinfo))
    if re.fullmatch(r"[0-9a-f]{12}", hostname) and not any(i.startswith(hostname) for i in found):
        found[hostname] = None
    return tuple(found)


def _why_out(state: _State) -> str | None:
    if not state.running:
        return "exited"
    if state.restarting:
        return "restarting"
    if state.paused:
        return "paused"
    if state.health is not None and state.health.status == "unhealthy":
        return "unhealthy"
    return None


def _address(endpoint: _Endpoint) -> str:
    if endpoint.address or not endpoint.address_v6:
        return endpoint.address
    return f"[{endpoint.address_v6}]"


def _nanoseconds(text: str) -> int:
    """Of a time such as 2026-01-31T12:00:00.123456789Z; 0 for "never" (year 1) and for others."""
    match = _TIME.fullmatch(text)
    if match is None:
        return 0
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone)).astimezone(UTC)
    if moment.year < 1970:
        return 0
    return int(moment.timestamp()) * _NANO + int((fraction or "0").ljust(9, "0"))


def _gpu(requests: list[_DeviceRequest] | tuple[()], env: list[str] | tuple[()]) -> str | None:
    """Which devices it was given: by the requests for devices, else by the NVIDIA variable.

    An image may set the variable to `all` by itself, so the requests go first.
    """
    for request in requests:
        kinds = {kind for group in request.capabilities or () for kind in group}
        if request.driver == "nvidia" or "gpu" in kinds:
            if request.device_ids:
                return _shown(",".join(request.device_ids))
            return "all" if request.count < 0 else None
    for variable in reversed(env):
        name, _, value = variable.partition("=")
        if name == "NVIDIA_VISIBLE_DEVICES":
            return None if value in _NO_GPUS else _shown(value)
    return None


def _shown(devices: str) -> str | None:
    return devices if devices.isprintable() and len(devices) <= _MAX_GPU_CHARS else None
