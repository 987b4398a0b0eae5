"""Whatever the reference allows, and much it does not, gets an answer that the reference tells.

schemathesis draws requests from /openapi.json: right ones, wrong ones, and methods, headers and
parameters on the bounds of what is described. No answer may be a fault, or other than described.
It runs as its users run it, so that it needs nothing of this pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.reference.conftest import ADMIN, KEY, OUTSIDE
from router.api.openapi_paths import OPERATIONS

# One worker: in CPython 3.11 two threads that parse Python at once, as hypothesis does to name what
# it draws from, now and then fail with "AST constructor recursion depth mismatch".
# Which path a body fits is not OpenAPI's to say, so a right body may be wrong for `path`.
_CONFIGURATION = f"""
seed = 1
workers = 1
headers = {{ {OUTSIDE[0]} = "{OUTSIDE[1]}" }}

[generation]
deterministic = true
database = "none"
max-examples = 40

[auth.openapi]
adminKey = {{ bearer = "{ADMIN}" }}
clientKey = {{ bearer = "{KEY}" }}

[[operations]]
include-path = "/explain"
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def report(router, tmp_path_factory, finding) -> dict:
    """What one run has found."""
    folder: Path = tmp_path_factory.mktemp("schemathesis")
    (folder / "schemathesis.toml").write_text(_CONFIGURATION)
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{router.url}/openapi.json",
        "--report", "json", "--report-json-path", folder / "report.json",
    ]  # fmt: skip
    ended = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stdout[-12000:] + ended.stderr[-2000:]
    finding(ended.stdout[-1200:])
    return json.loads((folder / "report.json").read_text())


def test_every_answer_conforms_and_none_is_a_fault(report):
    assert (report["failures"], report["errors"]) == ([], [])


def test_every_operation_was_tested_but_for_the_document_itself(report):
    tested = {label.partition(" ")[2] for label in report["valid_rates"]}
    assert tested == {each.path for each in OPERATIONS} - {"/openapi.json"}


@pytest.mark.parametrize("label", ["POST /explain", "GET /v1/models/{id}", "GET /v1/usage"])
def test_not_every_request_was_refused(report, label):
    assert sum(phase["accepted"] for phase in report["valid_rates"][label].values())
