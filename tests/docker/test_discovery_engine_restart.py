"""The Docker engine itself is stopped and started, while its containers run on (`live-restore`).

An engine of this test's own: the one that all tests share must not go away under them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker import IMAGE, MODEL, Docker, until
from support.http import call, chat

pytestmark = pytest.mark.docker
PATH = "/v1/chat/completions"
WHOLE_S = 5.0
BRIDGE = "router-test0"  # with none at all, a dockerd takes away the one of another engine


class OwnEngine:
    """A dockerd that a test starts, stops and kills.

    Args:
        folder: for all that it keeps; short, for a socket's path has 108 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/s"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "dockerd", "--live-restore", "--bridge", BRIDGE, "--iptables=false", "--ip-masq=false",
            "--data-root", f"{self._folder}/data", "-H", self.host,
            "--exec-root", f"{self._folder}/exec", "-p", f"{self._folder}/pid",
            "--default-address-pool", "base=10.213.0.0/16,size=24",
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, "dockerd answers", timeout=60)

    def stop(self) -> None:
        assert self._child is not None
        self._child.terminate()
        self._child.wait(30)

    def sweep(self) -> None:
        """End what a stopped engine has left behind: its containers run on without it."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{self._folder}/exec".encode() in path.read_bytes():
                    children = path.parent / "task" / path.parent.name / "children"
                    for pid in (*children.read_text().split(), path.parent.name):
                        os.kill(int(pid), signal.SIGKILL)
        mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
        for mount in sorted((m for m in mounts if m.startswith(f"{self._folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)

    def _answers(self) -> bool:
        command = ["docker", "-H", self.host, "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[OwnEngine]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("an engine of its own needs root and dockerd")
    folder = tmp_path_factory.mktemp("d")
    engine = OwnEngine(folder)
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.212.0.1/24", "dev", BRIDGE], check=True)
    engine.start()
    try:
        with subprocess.Popen(
            ["docker", "-H", docker_host, "save", IMAGE], stdout=subprocess.PIPE
        ) as save:
            subprocess.run(["docker", "-H", engine.host, "load"], stdin=save.stdout, check=True)
        yield engine
    finally:
        engine.stop()
        engine.sweep()
        subprocess.run(["ip", "link", "delete", BRIDGE], check=True)


@pytest.fixture
def docker(own_engine: OwnEngine) -> Iterator[Docker]:
    """In place of the shared engine."""
    with Docker(own_engine.host) as docker:
        yield docker


def test_routing_goes_on_without_the_engine_and_discovery_is_whole_again(
    docker, own_engine, start_router, finding
):
    router = start_router()
    ids = [docker.engine(name, labels={"name": name}) for name in ("a", "b")]
    until(lambda: router.healthy_count() == 2, "both healthy")
    own_engine.stop()
    try:
        until(lambda: router.metric("router_discovery_healthy", source="docker") == 0, "lost")
        assert set(router.services()) == {"a", "b"}
        assert {call(router.port, "POST", PATH, chat(MODEL)).status for _ in range(20)} == {200}
    finally:
        own_engine.start()
    took = until(lambda: router.metric("router_discovery_healthy", source="docker") == 1, "back")
    finding(f"engine stopped and started: discovery whole {took:.2f} s after it answers again")
    assert took < WHOLE_S
    assert router.healthy_count() == 2
    docker("kill", ids[0])
    assert until(lambda: set(router.services()) == {"b"}, "out") < 1
    docker("start", ids[0])
    until(lambda: router.healthy_count() == 2, "used again")


def test_what_changed_while_the_engine_was_away_is_made_good(docker, own_engine, start_router):
    router = start_router()
    stays = docker.engine("a", labels={"name": "a"})
    dies = docker.engine("b", labels={"name": "b"})
    until(lambda: router.healthy_count() == 2, "both healthy")
    pid = docker("inspect", "-f", "{{.State.Pid}}", dies)
    own_engine.stop()
    try:
        until(lambda: router.metric("router_discovery_healthy", source="docker") == 0, "lost")
        os.kill(int(pid), 9)
    finally:
        own_engine.start()
    until(lambda: set(router.services()) == {"a"}, "reconciled", timeout=WHOLE_S)
    assert docker("inspect", "-f", "{{.State.Running}}", stays) == "true"
