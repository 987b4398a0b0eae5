"""nginx with the gateway's own configuration, on free ports, before a scripted router."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Self

import httpx2

from support.daemon import free_port
from unit.deploy.machine import REPOSITORY

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
START_TIMEOUT_S = 10


class Gateway:
    """One nginx, ended with the context.

    Args:
        folder: for its files.
        upstream_port: where the router listens.
        operators: as OPERATOR_NETWORKS.

    Attributes:
        https: its port.
        http: the port that leads to the other.
    """

    def __init__(self, folder: Path, upstream_port: int, operators: str = "") -> None:
        self.https, self.http = free_port(), free_port()
        self._folder = folder
        self._operators = operators
        subprocess.run(
            [REPOSITORY / "nginx" / "self-signed.sh", folder / "tls"],
            check=True,
            capture_output=True,
        )
        self._configuration = folder / "nginx.conf"
        self._configuration.write_text(self._rendered(upstream_port))
        wrapper = folder / "bin" / "nginx"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {NGINX} -e stderr -c {self._configuration} "$@"\n')
        wrapper.chmod(0o755)

    def _rendered(self, upstream_port: int) -> str:
        """The configuration with this machine's places for the container's."""
        text = (REPOSITORY / "nginx" / "gateway.conf").read_text()
        for what, here in (
            ("user nginx;", f"user {'root' if os.geteuid() == 0 else 'nobody'};"),
            ("worker_processes 4;", "worker_processes 1;"),
            ("worker_rlimit_nofile 65536;", ""),
            ("worker_connections 16384;", "worker_connections 128;"),
            ("server router:8000;", f"server 127.0.0.1:{upstream_port};"),
            ("listen 443 ", f"listen 127.0.0.1:{self.https} "),
            ("listen 80 ", f"listen 127.0.0.1:{self.http} "),
            ("listen 127.0.0.1:8081;", f"listen 127.0.0.1:{free_port()};"),
            ("/run/nginx/", f"{self._folder}/run/"),
            ("/etc/nginx/tls/", f"{self._folder}/tls/"),
            ("/dev/stdout", f"{self._folder}/access.log"),
        ):
            assert what in text, what
            text = text.replace(what, here)
        return re.sub(r" /tmp/(\w+);", rf" {self._folder}/\1;", text)

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            ["/bin/sh", REPOSITORY / "nginx" / "start.sh"],
            env={
                "PATH": f"{self._folder}/bin:{os.environ['PATH']}",
                "RUN_DIR": f"{self._folder}/run",
                "HTTPS_PORT": str(self.https),
                "OPERATOR_NETWORKS": self._operators,
            },
            stderr=(self._folder / "error.log").open("wb"),
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            said = (self._folder / "error.log").read_text()
            assert self._child.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.https), timeout=1).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait(10)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._folder / "tls" / "cert.pem")

    def client(self) -> httpx2.Client:
        """A client with HTTP/2 that trusts the certificate."""
        url = f"https://localhost:{self.https}"
        return httpx2.Client(http2=True, verify=self._trust(), base_url=url, timeout=10)

    def connection(self) -> ssl.SSLSocket:
        """A bare connection, for HTTP/1.1."""
        bare = socket.create_connection(("127.0.0.1", self.https), timeout=10)
        return self._trust().wrap_socket(bare, server_hostname="localhost")

    @property
    def log(self) -> str:
        """The access log so far."""
        return (self._folder / "access.log").read_text()
