"""Images for a machine without a registry: a base, nginx of this host, an engine for `vllm serve`.

All are made on an image with Python 3.11 or newer that the engine has already.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

BASE_IMAGE = "router-test/base:local"
NGINX_IMAGE = "router-test/nginx:local"
VLLM_IMAGE = "router-test/vllm:local"

# What a wheel may load without bringing it along (PEP 600), as far as a bare image lacks it.
MANYLINUX = (
    "libgcc_s.so.1", "libstdc++.so.6", "librt.so.1", "libpthread.so.0", "libdl.so.2",
    "libutil.so.1", "libm.so.6", "libresolv.so.2", "libz.so.1",
)  # fmt: skip

BASE_DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY root /
RUN ldconfig
"""

NGINX_DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY root /
RUN ldconfig && mkdir -p /var/log/nginx /var/lib/nginx /run/nginx && \\
    echo 'nginx:x:101:101::/:/bin/false' >>/etc/passwd && echo 'nginx:x:101:' >>/etc/group
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
CMD ["nginx", "-g", "daemon off;"]
"""

# `vllm serve MODEL --flag value ...`, simulated; flags that the simulated engine lacks are noted.
VLLM_PROGRAM = """\
#!/opt/router/bin/python3
import json, os, sys
assert sys.argv[1] == "serve", sys.argv
model, flags = sys.argv[2], sys.argv[3:]
given = dict(zip(flags[::2], flags[1::2]))
print("started with", json.dumps(sys.argv[1:]), flush=True)
known = ["simulate", "--model", given.get("--served-model-name", model)]
for flag in ("--host", "--port", "--max-model-len", "--max-num-seqs"):
    if flag in given:
        known += [flag, given[flag]]
os.execv("/opt/router/bin/router", ["router", *known])
"""

VLLM_DOCKERFILE = """\
ARG ROUTER_IMAGE
FROM ${ROUTER_IMAGE}
USER root
COPY vllm /usr/local/bin/vllm
RUN chmod 755 /usr/local/bin/vllm && mkdir -p /root/.cache/huggingface
"""


def _libraries(program: Path) -> list[Path]:
    """Shared libraries that a program loads, as `ldd` finds them."""
    out = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", out)]


def _put(source: Path, root: Path) -> None:
    """Copy a file to its place below root; /lib and its like are links into /usr there."""
    merged = source.parts[1] in {"lib", "lib64", "bin", "sbin"}
    place = Path("usr", *source.parts[1:]) if merged else Path(*source.parts[1:])
    target = root / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def build(folder: Path, tag: str, *arguments: str) -> None:
    """`docker build`, quietly; its output is in the error."""
    done = subprocess.run(
        ["docker", "build", "-q", "-t", tag, *arguments, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def build_base(folder: Path, base: str) -> None:
    """BASE_IMAGE: with what wheels take for granted; python:3.11-slim has it by itself."""
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in MANYLINUX:
        found = re.search(rf"{re.escape(name)} .*=> (/\S+)", listed)
        assert found is not None, f"{name} is not on this host"
        _put(Path(found[1]), folder / "root")
    (folder / "Dockerfile").write_text(BASE_DOCKERFILE)
    build(folder, BASE_IMAGE, "--build-arg", f"BASE_IMAGE={base}")


def build_nginx(folder: Path, base: str) -> None:
    """NGINX_IMAGE: this host's nginx and curl, with the libraries that they load."""
    root = folder / "root"
    for name in ("nginx", "curl"):
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert found is not None, f"{name} is not installed on this host"
        program = Path(found).resolve()
        _put(program, root)
        for library in _libraries(program):
            _put(library, root)
    for name in ("/etc/nginx/mime.types", "/etc/ssl/openssl.cnf"):
        if Path(name).exists():
            _put(Path(name), root)
    (folder / "Dockerfile").write_text(NGINX_DOCKERFILE)
    build(folder, NGINX_IMAGE, "--build-arg", f"BASE_IMAGE={base}")


def build_vllm(folder: Path, router_image: str) -> None:
    """VLLM_IMAGE: the router's image with a `vllm` that runs the simulated engine."""
    (folder / "vllm").write_text(VLLM_PROGRAM)
    (folder / "Dockerfile").write_text(VLLM_DOCKERFILE)
    build(folder, VLLM_IMAGE, "--build-arg", f"ROUTER_IMAGE={router_image}")
