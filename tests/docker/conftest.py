"""A real Docker engine. The network of its containers must be reachable from here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon
from support.docker import Docker

StartRouter = Callable[..., Daemon]


@pytest.fixture(scope="session")
def docker_host() -> str:
    """Where the engine listens."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


@pytest.fixture
def docker(docker_host: str) -> Iterator[Docker]:
    """An engine with a network of this test's own; its containers go with the test."""
    with Docker(docker_host) as engine:
        yield engine


@pytest.fixture
def start_router(tmp_path: Path, docker: Docker) -> Iterator[StartRouter]:
    """Start a router that follows this engine; SIGTERM must end it with 0."""
    with ExitStack() as stack:

        def start(endpoint: str | None = None, **sections: Any) -> Daemon:
            places = {
                "enabled": True,
                "endpoint": endpoint or docker.host,
                "network": docker.network,
            }
            config = {
                "health": {"interval_s": 1, "timeout_s": 2},
                "discovery": {"docker": places},
                **sections,
            }
            daemon = Daemon(tmp_path / "router", config, healthy=0)
            stack.callback(daemon.kill)
            return stack.enter_context(daemon)

        yield start
