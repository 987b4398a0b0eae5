"""Prometheus and Alertmanager on loopback, each in its process; a Docker API with one container."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from support.daemon import free_port

TIMEOUT_S = 60


class Program:
    """A server of Prometheus' family; ready once its `/-/ready` says so, always ended."""

    def __init__(self, folder: Path, port: int, *command: str) -> None:
        self.port = port
        self._log = folder / f"{command[0]}.log"
        with self._log.open("wb") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder
            )

    def __enter__(self) -> Self:
        self.until(lambda: self.get("/-/ready") is not None, "ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def get(self, path: str) -> Any:
        """What it answers: JSON, or text; None for no answer of status 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body = answer.read()
        except (urllib.error.URLError, OSError):
            return None
        return json.loads(body) if body.startswith((b"{", b"[")) else body.decode()

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        """Ask again and again; what it was that came."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := ready()):
            log = self._log.read_text(errors="replace")[-3000:]
            assert self._child.poll() is None, f"it has ended; log:\n{log}"
            assert time.monotonic() < deadline, f"{what}: not in {TIMEOUT_S} s; log:\n{log}"
            time.sleep(0.1)
        return found


def prometheus(folder: Path) -> Program:
    """Prometheus with `prometheus.yml` of this folder."""
    port = free_port()
    return Program(
        folder, port, "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip


def alertmanager(folder: Path, configuration: Path) -> Program:
    """Alertmanager, alone."""
    port = free_port()
    return Program(
        folder, port, "prometheus-alertmanager", f"--config.file={configuration}",
        "--storage.path=alerts", f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=", "--log.level=warn",
    )  # fmt: skip


class DockerApi(ThreadingHTTPServer):
    """As much of Docker's API as Prometheus asks for: one container with labels.

    Attributes:
        container: its row of `/containers/json`.
        asked: paths, without the version and the query.
    """

    daemon_threads = True

    def __init__(self, container: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Docker)
        self.container = container
        self.asked: set[str] = set()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_port}"


class _Docker(BaseHTTPRequestHandler):
    server: DockerApi
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/v1."):
            path = path[path.index("/", 1) :]
        self.server.asked.add(path)
        network = {"Id": "n1", "Name": "inference-network", "Scope": "local", "Ingress": False}
        pages = {
            "/_ping": "OK",
            "/containers/json": [self.server.container],
            "/networks": [network],
        }
        body = json.dumps(pages.get(path)).encode()
        self.send_response(200 if path in pages else 403)
        self.send_header("api-version", "1.41")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def docker_api(container: dict[str, Any]) -> Iterator[DockerApi]:
    """A Docker API while the context lasts."""
    with DockerApi(container) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
