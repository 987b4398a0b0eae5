"""What tests of alerts and dashboard share: the files, their expressions, and the real tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.daemon import Daemon, Engine, service
from support.http import call, chat

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "router.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yml"))

_TOOLS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
_VARIABLES = {"$service": ".*", "$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}


def rules() -> list[dict[str, Any]]:
    """Every rule of the shipped file, recording ones too."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """Name -> alert."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """(title, panel) of every dashboard's panels that show something."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            if panel["type"] != "row":
                yield panel["title"], panel


def dashboard_expressions() -> list[tuple[str, str]]:
    """(where, expression) of panels and annotations, with values for Grafana's variables."""
    found = [(title, each["expr"]) for title, panel in panels() for each in panel["targets"]]
    for file in DASHBOARDS:
        notes = json.loads(file.read_text())["annotations"]["list"]
        found += [(note["name"], note["expr"]) for note in notes if "expr" in note]
    return [(where, _filled(expression)) for where, expression in found]


def _filled(expression: str) -> str:
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


def metrics_of(expression: str) -> set[str]:
    """Names of the router's own and its process's metrics in PromQL, as in `# TYPE` lines."""
    bare = re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    names = re.findall(r"\b(?:router|process|python)_\w+", bare)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def tool(name: str, *arguments: str | Path, text: str = "") -> str:
    """Run one of Prometheus' tools; what it says. It must be content."""
    ended = subprocess.run(
        [name, *map(str, arguments)],
        check=False, input=text, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


@pytest.fixture(autouse=True)
def tools(request: pytest.FixtureRequest) -> None:
    """Whoever asks for these tests must have the tools: they do not pass over in silence."""
    if request.node.get_closest_marker("prometheus"):
        absent = [name for name in _TOOLS if shutil.which(name) is None]
        assert not absent, f"not on the PATH: {', '.join(absent)}"


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics of a daemon with a service, a limited organization and files to discover."""
    folder = tmp_path_factory.mktemp("exposition")
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(folder / "engine", "org/m"))
        (folder / "router" / "services.d").mkdir(parents=True)
        config = {
            "services": [service("a", engine.url, max_concurrency=4)],
            "organizations": [{"id": "acme"}],
            "discovery": {"files": "services.d"},
        }
        router = stack.enter_context(Daemon(folder / "router", config))
        assert call(router.port, "POST", "/v1/chat/completions", chat("org/m")).status == 200
        return router.get("/metrics").body.decode()
