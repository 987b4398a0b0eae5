"""From a container's labels to a service, or to what is wrong with them: a pure decision.

Only the engine's key is read from its file; how is handed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from router.config.settings import ServiceSettings
from router.config.wording import location_of, message_of, nearest
from router.discovery.container import ENABLE, Container
from router.discovery.status import DOCKER
from router.model import ServiceSpec

_PREFIX = "router."
_COMPOSE_SERVICE = "com.docker.compose.service"
_DEFAULT_PORT = 8000
_NO_DNS = {"bridge", "host"}  # Docker's own networks resolve no names

# Field of a service -> the label it is read from.
_LABELS = {
    "name": "router.name",
    "url": "router.port",
    "models": "router.models",
    "group": "router.group",
    "weight": "router.weight",
    "max_concurrency": "router.max-concurrency",
    "gpu": "router.gpu",
    "health_path": "router.health-path",
    "api_key": "router.api-key-file",
}
_KNOWN = (ENABLE, *_LABELS.values())
_NUMBERS = ("weight", "max_concurrency")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

ReadKey = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class View:
    """From where and how the router looks at containers.

    Attributes:
        network: on which it reaches them.
        inside: the router is itself a container on that network.
        health_path: of a service without one of its own.
    """

    network: str
    inside: bool = False
    health_path: str = "/health"


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """What is wrong with a container's labels.

    Attributes:
        label: the label, or the name of a network.
        message: what is wrong and what would be right; holds no secret.
    """

    label: str
    message: str

    def __str__(self) -> str:
        return f"{self.label}: {self.message}"


@dataclass(frozen=True, slots=True)
class Member:
    """A container that is a service.

    Attributes:
        container: the container.
        spec: the service; two containers may ask for the same name.
        remarks: what does not keep it from serving, such as a label that nobody knows.
    """

    container: Container
    spec: ServiceSpec
    remarks: tuple[LabelProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A container that asks to be a service, and cannot be.

    Attributes:
        container: the container.
        problems: why not.
    """

    container: Container
    problems: tuple[LabelProblem, ...]


Finding = Member | Rejected | None


def judge(container: Container, view: View, read_key: ReadKey) -> Finding:
    """Tell what a container is to the router; None: nothing, as it does not ask or is not up.

    `read_key` reads the file of an engine's key; it raises ValueError.
    """
    enabled = container.labels.get(ENABLE, "").strip().lower()
    if enabled in {"", "false"}:
        return None
    if enabled != "true":
        shown = enabled if len(enabled) <= 40 else f"{enabled[:40]}…"
        message = f"must be true or false (it is {shown!r})"
        return Rejected(container, (LabelProblem(ENABLE, message),))
    if container.out is not None:
        return None
    problems: list[LabelProblem] = []
    host = _host(container, view, problems)
    fields = dict(_fields(container, host, read_key, problems))
    spec = _spec(fields, view, problems)
    if spec is None or problems:
        return Rejected(container, tuple(problems))
    if spec.gpu is None and container.gpu is not None:
        spec = replace(spec, gpu=container.gpu)
    return Member(container, spec, tuple(_unknown(container.labels)))


def _host(container: Container, view: View, problems: list[LabelProblem]) -> str:
    """Where the container is reached: its name inside the network, its address outside."""
    address = container.addresses.get(view.network)
    if address is None:
        message = (
            f"the container is not on this network; put it there, "
            f"or write the network that it is on ({_listed(container)}) as discovery.docker.network"
        )
        problems.append(LabelProblem(f"network {view.network}", message))
    elif view.inside and view.network not in _NO_DNS:
        return container.name
    elif not address:
        message = "the container has no address on it; use a network of its own, not `host`"
        problems.append(LabelProblem(f"network {view.network}", message))
    return address or "unknown"


def _listed(container: Container) -> str:
    return ", ".join(sorted(container.addresses)[:10]) or "none"


def _fields(
    container: Container, host: str, read_key: ReadKey, problems: list[LabelProblem]
) -> Iterator[tuple[str, object]]:
    """The labels as the fields of a service; an empty label counts as one that is not there."""
    given = {
        field: text
        for field, label in _LABELS.items()
        if (text := container.labels.get(label, "").strip())
    }
    yield "name", given.get("name") or container.labels.get(_COMPOSE_SERVICE) or container.name
    yield "url", f"http://{host}:{_port(given.get('url'), problems)}"
    for field in ("group", "gpu", "health_path"):
        if field in given:
            yield field, given[field]
    for field in _NUMBERS:
        if field in given:
            yield field, _number(_LABELS[field], given[field], problems)
    if "models" in given:
        names = (name.strip() for name in given["models"].split(","))
        yield "models", list(dict.fromkeys(name for name in names if name))
    if "api_key" in given:
        yield "api_key", _key(given["api_key"], read_key, problems)


def _port(text: str | None, problems: list[LabelProblem]) -> int:
    if text is None:
        return _DEFAULT_PORT
    port = _number(_LABELS["url"], text, problems)
    if port is not None and not 1 <= port <= 65_535:
        problems.append(LabelProblem(_LABELS["url"], f"must be 1 to 65535 (it is {port})"))
        return _DEFAULT_PORT
    return port or _DEFAULT_PORT


def _number(label: str, text: str, problems: list[LabelProblem]) -> int | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    shown = f" (it is {text!r})" if len(text) <= 40 else ""
    problems.append(LabelProblem(label, f"must be a whole number{shown}"))
    return None


def _key(path: str, read_key: ReadKey, problems: list[LabelProblem]) -> str | None:
    if not path.startswith("/"):
        message = "must be an absolute path in the router's own container, /run/secrets/chat_key"
        problems.append(LabelProblem(_LABELS["api_key"], message))
        return None
    try:
        return read_key(Path(path))
    except ValueError as error:
        problems.append(LabelProblem(_LABELS["api_key"], str(error)))
        return None


def _spec(
    fields: Mapping[str, object], view: View, problems: list[LabelProblem]
) -> ServiceSpec | None:
    """Check the fields as those of a service of the file are checked."""
    known_bad = {problem.label for problem in problems}
    given = {field: value for field, value in fields.items() if value is not None}
    try:
        settings = ServiceSettings.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            field = str(location_of(each)[0])
            label = _LABELS.get(field, field)
            if label not in known_bad:
                message = message_of(each, show_value=field != "api_key")
                problems.append(LabelProblem(label, message))
                known_bad.add(label)
        return None
    return settings.to_spec(health_path=view.health_path, source=DOCKER)


def _unknown(labels: Mapping[str, str]) -> Iterator[LabelProblem]:
    for label in labels:
        if label.startswith(_PREFIX) and label not in _KNOWN:
            meant = nearest(label, _KNOWN)
            remedy = f"did you mean {meant}?" if meant else f"known: {', '.join(_KNOWN)}"
            yield LabelProblem(label, f"unknown label; {remedy}")
