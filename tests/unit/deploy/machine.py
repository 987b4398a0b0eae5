"""The operator's scripts on a machine that a test makes up: it decides what is on the PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TOOLS = (
    "awk", "basename", "bash", "cat", "chmod", "df", "dirname", "env", "flock", "grep", "head",
    "hostname", "mkdir", "mv", "openssl", "paste", "rm", "sed", "sh", "sleep", "sort", "tail", "tr",
)  # fmt: skip

# A Docker engine that says what the files beside it say, and has nothing but that.
DOCKER = """\
#!/bin/sh
facts=$(dirname "$0")/docker-facts
case "$*" in
  version) cat "$facts/version" ;;
  'compose version --short') cat "$facts/compose" ;;
  'info -f {{.DockerRootDir}}') cat "$facts/root" ;;
  'info -f '*) cat "$facts/runtimes" ;;
  'container inspect '*) for name; do :; done; cat "$facts/container-$name" ;;
  'port inference-nginx') cat "$facts/ports" ;;
  *) echo "not expected: docker $*" >&2; exit 1 ;;
esac 2>/dev/null
"""
NVIDIA_SMI = """\
#!/bin/sh
cat "$(dirname "$0")/gpus"
"""


class Machine:
    """A checkout and the programs of a machine: by default one on which everything is right.

    Attributes:
        deploy: the checkout's `deploy/`.
        programs: the folder that is its whole PATH.
    """

    def __init__(self, folder: Path) -> None:
        self.deploy = folder / "checkout" / "deploy"
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        self._copy(folder / "checkout")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, f"{tool} is not installed"
            (self.programs / tool).symlink_to(found)
        self.program("docker", DOCKER)
        self.program("nvidia-smi", NVIDIA_SMI)
        self.docker(version="28", compose="2.26.1", root="/nowhere", runtimes='{"nvidia":{}}')
        self.gpus("0, 4", "1, 4")
        self.settings(NGINX_HTTP_PORT="1", NGINX_HTTPS_PORT="2")

    def _copy(self, checkout: Path) -> None:
        private = shutil.ignore_patterns(".run", ".env", "*.whl")
        for room in ("deploy", "nginx"):
            shutil.copytree(REPOSITORY / room, checkout / room, ignore=private)

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def docker(self, **facts: str | None) -> None:
        """What the engine says; None: it says nothing and fails. `__` stands for `-`."""
        folder = self.programs / "docker-facts"
        folder.mkdir(exist_ok=True)
        for name, fact in facts.items():
            path = folder / name.replace("__", "-")
            if fact is None:
                path.unlink()
            else:
                path.write_text(fact + "\n")

    def gpus(self, *rows: str) -> None:
        """Lines of nvidia-smi: index, used MiB."""
        (self.programs / "gpus").write_text("".join(f"{row}\n" for row in rows))

    def settings(self, **values: str) -> None:
        """Write `.env`: the example, and then these."""
        example = (self.deploy / ".env.example").read_text()
        lines = "".join(f"{name}={value}\n" for name, value in values.items())
        (self.deploy / ".env").write_text(example + lines)

    def run(
        self, script: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.deploy / script, *arguments],
            env={"PATH": str(self.programs), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def shell(self, program: str, given: str = "") -> str:
        """What a line of bash prints that uses the scripts' own functions."""
        files = " ".join(f". lib/{name}.sh;" for name in ("common", "checks", "wait"))
        done = subprocess.run(
            ["bash", "-c", f'set -euo pipefail; cd "{self.deploy}"; {files} {program}'],
            env={"PATH": str(self.programs)},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout
