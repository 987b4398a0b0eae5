"""The daemon in a process, started for one test or for one module, always ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon
from support.upstream import Script, ScriptedUpstream

StartDaemon = Callable[..., Daemon]
StartUpstream = Callable[..., ScriptedUpstream]


def start_in(stack: ExitStack, folder: Path) -> StartDaemon:
    """A function that starts daemons in this folder and leaves their end to the stack."""

    def start(config: Mapping[str, Any], **more: Any) -> Daemon:
        daemon = Daemon(folder / f"router-{len(list(folder.iterdir()))}", config, **more)
        stack.callback(daemon.kill)
        return stack.enter_context(daemon)

    return start


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Start a daemon with a configuration; at the test's end SIGTERM must end it with 0."""
    with ExitStack() as stack:
        yield start_in(stack, tmp_path)


@pytest.fixture(scope="module")
def start_module_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """The same for a daemon that a module's tests share."""
    with ExitStack() as stack:
        yield start_in(stack, tmp_path_factory.mktemp("daemons"))


@pytest.fixture
def start_upstream() -> Iterator[StartUpstream]:
    """Start a scripted engine that ends with the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None, **more: Any) -> ScriptedUpstream:
            return stack.enter_context(ScriptedUpstream(script, **more))

        yield start


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """One scripted engine that a module's tests share; each sets its script."""
    with ScriptedUpstream() as shared:
        yield shared
