"""The router in a container of its own, on the network of the engines."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from support.docker import IMAGE, Docker, until

pytestmark = pytest.mark.docker
CHECKOUT = Path(__file__).parents[2]
PACKAGES = sysconfig.get_path("platlib")
# What compiled packages need and an image made of an interpreter alone lacks.
NEEDED = ("libgcc_s.so.1", "librt.so.1", "libpthread.so.0", "libdl.so.2", "libstdc++.so.6")


def missing_libraries(docker: Docker) -> dict[str, str]:
    """Those of this machine that the image lacks, and where they are mounted."""
    code = f"""
import ctypes
for name in {NEEDED!r}:
    try:
        ctypes.CDLL(name)
    except OSError:
        print(name)
"""
    lacks = docker("run", "--rm", "--network", "none", IMAGE, "python3", "-c", code).split()
    found = (path for name in lacks for path in Path("/usr/lib").glob(f"*-linux-gnu/{name}"))
    return {str(path): f"/libraries/{path.name}" for path in found}


def start_router(docker: Docker, folder: Path, *options: str) -> str:
    """Run this checkout with this interpreter's packages in a container; its base URL."""
    discovery = {"docker": {"enabled": True, "network": docker.network}}
    server = {"status_allow": ["0.0.0.0/0"]}
    config = {"server": server, "discovery": discovery, "ledger": {"url": "memory://"}}
    (folder / "backends.yaml").write_text(yaml.safe_dump(config))
    mounts = {
        str(CHECKOUT): "/src",
        PACKAGES: "/packages",
        docker.host.removeprefix("unix://"): "/var/run/docker.sock",
        str(folder): "/etc/router",
        **missing_libraries(docker),
    }
    flags = [part for source, target in mounts.items() for part in ("-v", f"{source}:{target}:ro")]
    id_ = docker(
        "run", "-d", "--network", docker.network, "--label", f"router-test={docker.run_id}",
        "-e", "LD_LIBRARY_PATH=/libraries", "-e", "PYTHONPATH=/src:/packages",
        "-e", "PYTHONDONTWRITEBYTECODE=1", *flags, *options,
        IMAGE, "python3", "-m", "router", "serve", "--config", "/etc/router/backends.yaml",
    )  # fmt: skip
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return f"http://{docker('inspect', '-f', form, id_)}:8000"


def services(url: str) -> dict[str, dict[str, object]]:
    try:
        with urlopen(f"{url}/services", timeout=2) as answer:
            return {row["name"]: row for row in json.load(answer)["services"]}
    except OSError:
        return {}


@pytest.mark.parametrize("host_name", [None, "gateway"])
def test_inside_the_network_engines_are_reached_by_their_names(docker, tmp_path, host_name):
    options = ["--hostname", host_name] if host_name else []
    url = start_router(docker, tmp_path, *options)
    name = f"vllm-chat-{docker.run_id}"
    id_ = docker.engine("vllm-chat", labels={"name": "chat"})
    until(lambda: bool(services(url).get("chat", {}).get("healthy")), "healthy")
    assert services(url)["chat"]["url"] == f"http://{name}:8000"
    docker("restart", "-t", "0", id_)
    until(lambda: bool(services(url).get("chat", {}).get("healthy")), "healthy again")
