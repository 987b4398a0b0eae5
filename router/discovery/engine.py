"""A Docker engine as the router may see it: lists, inspects, listens. Blocking, for threads.

Everything that is asked is within the list of `nginx/docker-readonly.conf`: `/version`,
`/containers/json`, `/containers/{id}/json` and `/events`. Foreign errors become `EngineError`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors
import msgspec
import requests
import urllib3
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.types.daemon import CancellableStream

from router.discovery.container import (
    ENABLE,
    EVENT_FILTERS,
    Container,
    ContainerEvent,
    own_ids,
    read_container,
    read_event,
)
from router.log import get_logger

_ANSWER_S = 5
_IDLE_S = 30
_MOST_CONTAINERS = 10_000
_MOST_TOLD = 300
_MOUNTS = Path("/proc/self/mountinfo")
_IN_DOCKER = Path("/.dockerenv")

_log = get_logger("router.discovery")


class EngineError(Exception):
    """The engine cannot be reached, or does not answer as one; the message says which and why."""


class EngineIdle(EngineError):
    """Nothing came for a while: no news, or an engine that went away without a word."""


class Events(Protocol):
    """A stream of events that another thread may close."""

    def __iter__(self) -> Iterator[ContainerEvent]: ...

    def close(self) -> None:
        """End it."""


class Engine(Protocol):
    """What discovery needs of an engine; every method but `close` blocks: see `DockerEngine`."""

    def labelled(self) -> Sequence[str]:
        """Identifiers of the running containers that carry the label."""

    def inspect(self, id_: str) -> Container | None:
        """A container as it is now; None: it is not there."""

    def own_container(self) -> Container | None:
        """The container that this process runs in."""

    def events(self) -> Events:
        """Open the stream of events."""

    def close(self) -> None:
        """Close the connections."""


class _Client(docker.APIClient):
    """The SDK's client, with bounds.

    No wait is without an end, an event stream's neither: an engine that went away without a word
    is found out. Proxies and passwords of the environment are not for the engine.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        super().__init__(base_url=endpoint, version=version, timeout=_ANSWER_S)
        self.trust_env = False

    def send(
        self,
        request: requests.PreparedRequest,
        **options: Any,  # noqa: ANN401 - as the base has it
    ) -> requests.Response:
        """Send; with a bound and a look at the status where the SDK has none: at its stream."""
        if options.get("timeout") is None:
            options["timeout"] = (_ANSWER_S, _IDLE_S)
        response = super().send(request, **options)
        if options.get("stream"):
            response.raise_for_status()
        return response


class DockerEngine:
    """An engine behind the docker SDK.

    Args:
        endpoint: `unix:///path`, `tcp://host:port`, `http://…` or `https://…`.

    Raises:
        EngineError: it does not answer.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        with self._translated("connect"):
            version = _Client(endpoint, MINIMUM_DOCKER_API_VERSION).version(api_version=False)
            self._client = _Client(endpoint, version["ApiVersion"])
            self._listener = _Client(endpoint, version["ApiVersion"])

    def labelled(self) -> Sequence[str]:
        """Identifiers of the running containers that carry the label.

        Raises:
            EngineError: no answer, or not one of an engine.
        """
        with self._translated("list containers"):
            rows = self._client.containers(filters={"label": ENABLE})
            return [str(row["Id"]) for row in rows[:_MOST_CONTAINERS]]

    def inspect(self, id_: str) -> Container | None:
        """A container as it is now; None: it is not there, or cannot be understood.

        Raises:
            EngineError: no answer.
        """
        with self._translated("inspect a container"):
            try:
                return read_container(self._client.inspect_container(id_))
            except docker.errors.NotFound:
                return None
            except msgspec.ValidationError as error:
                _log.warning("container_not_understood", container=id_[:12], why=str(error))
                return None

    def own_container(self) -> Container | None:
        """The container that this process runs in; None: in none that this engine knows.

        Raises:
            EngineError: no answer.
        """
        if not _IN_DOCKER.exists():
            return None
        for id_ in own_ids(_MOUNTS.read_text(errors="replace"), socket.gethostname()):
            container = self.inspect(id_)
            if container is not None:
                return container
        return None

    def events(self) -> EventStream:
        """Open the stream.

        Raises:
            EngineIdle: nothing happened for half a minute; some engines answer only then.
            EngineError: no answer, or not one of an engine.
        """
        with self._translated("listen"):
            stream = self._listener.events(decode=True, filters=EVENT_FILTERS)
        return EventStream(stream, lambda: self._translated("listen"))

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._client.close()
        self._listener.close()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn every error of the libraries below into ours."""
        try:
            yield
        except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise EngineIdle(f"cannot {what} at {self._endpoint}: no answer in time") from error
        except (
            docker.errors.DockerException,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            # JSON of another shape than an engine's, which the SDK takes on trust
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise EngineError(f"cannot {what} at {self._endpoint}: {_reason(error)}") from error


class EventStream:
    """Events of an engine as they come, until it ends the stream or another thread closes it.

    Args:
        stream: the SDK's.
        translated: makes the context that turns foreign errors into ours.
    """

    def __init__(
        self,
        stream: CancellableStream[dict[str, Any]],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._stream = stream
        self._translated = translated

    def __iter__(self) -> Iterator[ContainerEvent]:
        """What happens to containers.

        Raises:
            EngineIdle: nothing happened for half a minute.
            EngineError: what comes is no stream of events.
        """
        with self._translated():
            for raw in self._stream:
                event = read_event(raw)
                if event is not None:
                    yield event

    def close(self) -> None:
        """End the stream; whoever reads it sees its end. From any thread."""
        with contextlib.suppress(AttributeError, OSError):  # the SDK's, where it has ended already
            self._stream.close()


def _reason(error: BaseException) -> str:
    """What the system said, where it did; else what the outermost error says."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return (str(error) or type(error).__name__)[:_MOST_TOLD]
