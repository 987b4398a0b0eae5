"""Starts and stops what is measured: fake backends, nginx, the router; each on its own core."""

import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from bench import wire
from bench.cpu import family

HARNESS_CORE, PROXY_CORE = 0, 1
START_S = 20.0
STOP_S = 8.0

NGINX_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream backends {{
    {servers}
    keepalive 64;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://backends;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""

ROUTER_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}}}
limits: {{per_ip: {{requests_per_second: 1000000, burst: 1000000}}}}
services:
{services}
"""


ORGANIZATION = """\
organizations:
  - id: bench
    daily_tokens: 1000000000000
    monthly_tokens: 1000000000000
    daily_requests: 1000000000
    keys: [{{id: bench-1, sha256: {digest}}}]
"""


def router_config(port: int, backend_ports: Sequence[int], *, with_keys: bool = False) -> str:
    """The router's configuration: the fake backends, and perhaps a key with an exact quota."""
    services = "\n".join(
        f"  - {{name: bench-{index}, url: 'http://127.0.0.1:{p}', models: [{wire.MODEL}]}}"
        for index, p in enumerate(backend_ports)
    )
    digest = hashlib.sha256(wire.KEY.encode()).hexdigest()
    keys = ORGANIZATION.format(digest=digest) if with_keys else ""
    return ROUTER_CONFIG.format(port=port, services=services) + keys


class StartError(Exception):
    """A process did not come up."""


@dataclass(frozen=True)
class Target:
    """What the load is sent to: its ports, and the processes whose CPU time counts as its own."""

    name: str
    ports: Sequence[int]
    pids: Sequence[int]


class Child:
    """One process on one core, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], core: int, folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, port: int, path: str = "", body: bytes = b"") -> None:
        """Return once the child answers 200 on the path; raise StartError if it never does."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(port, path, body):
                return
            time.sleep(0.05)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise StartError(f"{self.name} does not answer on port {port}; its output:\n{tail}")

    def stop(self) -> None:
        """End it, and whatever it started: politely first."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._signal(signum)
                try:
                    self._process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    continue
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            return


def _answers(port: int, path: str, body: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, body or None, headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _leave(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def end_on_sigterm() -> None:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no child outlives this process."""
    signal.signal(signal.SIGTERM, _leave)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Testbed:
    """Owns every child process; leaving it ends them all, also upon Ctrl-C or a failure."""

    def __init__(self, folder: Path, phases: int = 10) -> None:
        self._folder = folder
        self._phases = phases
        self._stack = ExitStack()
        self.backend_ports: list[int] = []
        self.backend_pids: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start_backends(self, count: int) -> None:
        for index in range(count):
            port = free_port()
            command = [sys.executable, "-m", "bench.backend", "--port", str(port)]
            command += ["--phases", str(self._phases)]
            child = self._spawn(f"backend-{index}", command, HARNESS_CORE)
            child.wait_until(port, "/health")
            self.backend_ports.append(port)
            self.backend_pids.append(child.pid)

    def start(self, name: str) -> Target:
        """Start one target by its name; raise StartError where it is not installed or not up."""
        if name == "direct":
            return Target(name, self.backend_ports, [])
        makers = {"nginx": self._nginx, "router": self._router}
        if name not in makers:
            raise StartError(f"no such target; there are direct, {', '.join(makers)}")
        port = free_port()
        child = self._spawn(name, makers[name](port), PROXY_CORE)
        child.wait_until(port, wire.CHAT_PATH, wire.chat_body())
        return Target(name, [port], family(child.pid))

    def _spawn(self, name: str, command: Sequence[str], core: int) -> Child:
        child = Child(name, command, core, self._folder)
        self._stack.callback(child.stop)
        return child

    def _nginx(self, port: int) -> list[str]:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise StartError("nginx is not installed (Debian, Ubuntu: apt-get install nginx-light)")
        servers = "\n    ".join(f"server 127.0.0.1:{p};" for p in self.backend_ports)
        user = "user root;" if os.geteuid() == 0 else ""
        config = self._folder / "nginx.conf"
        config.write_text(
            NGINX_CONFIG.format(folder=self._folder, servers=servers, port=port, user=user)
        )
        return [nginx, "-p", str(self._folder), "-c", str(config)]

    def _router(self, port: int) -> list[str]:
        config = self._folder / "backends.yaml"
        config.write_text(router_config(port, self.backend_ports))
        # As nginx above: the access log's cost is measured on its own, see `bench.added_cost`.
        options = ["--config", str(config), "--no-access-log"]
        return [sys.executable, "-m", "router", "serve", *options]
