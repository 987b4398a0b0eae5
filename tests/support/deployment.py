"""A checkout with the operator's scripts, run against a real engine as an operator would."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import openai

from support import deploy_images as images
from support.daemon import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = os.environ.get("DOCKER_BASE_IMAGE", "router-test/python-base:local")
LONGEST_S = 300
NVIDIA_SMI = '#!/bin/sh\nfor index in 0 1 2 3; do echo "$index, 4"; done\n'


def docker(*arguments: str, check: bool = True) -> str:
    """Run `docker …`; what it printed, without white space at its end."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments[:4])}: {done.stderr.strip()}")
    return done.stdout.strip()


def objects() -> dict[str, set[str]]:
    """What is on the engine and could be left behind."""
    return {
        "containers": set(docker("ps", "-a", "--format", "{{.Names}}").split()),
        "networks": set(docker("network", "ls", "--format", "{{.Name}}").split()),
        "volumes": set(docker("volume", "ls", "--format", "{{.Name}}").split()),
    }


class Deployment:
    """A copy of the checkout, and the settings of this machine.

    Args:
        folder: for the copy and for programs that stand before the machine's own.

    Attributes:
        deploy: the copy's `deploy/`.
        environment: what the scripts are run with.
    """

    def __init__(self, folder: Path) -> None:
        self.deploy = folder / "checkout" / "deploy"
        self._copy(folder / "checkout")
        self._wheels()
        programs = folder / "programs"
        programs.mkdir()
        (programs / "nvidia-smi").write_text(NVIDIA_SMI)
        (programs / "nvidia-smi").chmod(0o755)
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self.https = free_port()
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NGINX_HTTP_PORT": str(free_port()),
            "NGINX_HTTPS_PORT": str(self.https),
            "NGINX_IMAGE": images.NGINX_IMAGE,
            "VLLM_IMAGE": images.VLLM_IMAGE,
            "BASE_IMAGE": images.BASE_IMAGE,
            "DOCKER_SOCKET": host.removeprefix("unix://"),
            "ENGINE_MEMORY": "1g",
            "ENGINE_SHM": "64m",
        }

    def _copy(self, checkout: Path) -> None:
        private = shutil.ignore_patterns(".run", ".env", "*.whl", "__pycache__")
        for room in ("deploy", "nginx", "router"):
            shutil.copytree(REPOSITORY / room, checkout / room, ignore=private)
        for name in ("pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
            shutil.copy2(REPOSITORY / name, checkout / name)

    def _wheels(self) -> None:
        """The image is built without a network, from wheels that this machine has or can get."""
        wheelhouse = self.deploy / "wheelhouse"
        if given := os.environ.get("WHEELHOUSE"):
            for wheel in Path(given).glob("*.whl"):
                shutil.copy2(wheel, wheelhouse)
            return
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:",
                "--dest", wheelhouse, "setuptools>=77", *project["dependencies"],
            ],
            check=True,
            timeout=LONGEST_S,
        )  # fmt: skip

    # -- the scripts -----------------------------------------------------------------------------

    def run(
        self, script: str, *arguments: str, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts, and say what it said."""
        return subprocess.run(
            [self.deploy / script, *arguments],
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

    def succeed(self, script: str, *arguments: str, **settings: str) -> str:
        """The same; it must end with 0. What it printed."""
        done = self.run(script, *arguments, **settings)
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write_env(self, **settings: str) -> None:
        """Write `.env`: the example, and then these."""
        example = (self.deploy / ".env.example").read_text()
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.deploy / ".env").write_text(example + lines)

    # -- what it serves --------------------------------------------------------------------------

    def services(self) -> dict[str, dict[str, Any]]:
        """Rows of the router's `/services` by name."""
        program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/services').read().decode())"
        told = docker("exec", "inference-gateway", "python3", "-I", "-c", program)
        return {row["name"]: row for row in json.loads(told)["services"]}

    def client(self) -> openai.OpenAI:
        """The official client, by TLS and HTTP/2, trusting the self-signed certificate."""
        trust = ssl.create_default_context(cafile=self.deploy / ".run" / "tls" / "cert.pem")
        return openai.OpenAI(
            base_url=f"https://localhost:{self.https}/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx2.Client(http2=True, verify=trust, timeout=30),
        )
