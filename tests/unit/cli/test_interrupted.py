"""Ctrl-C before a command has begun."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTED = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "router.daemon":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from router.__main__ import main
"""
"""As the command's own script begins; the key is pressed in the middle of what it imports."""


@pytest.mark.parametrize(
    "program", [IMPORTED, IMPORTED.replace("from router.__main__ import main", "import runpy\n"
    "runpy.run_module('router', run_name='__main__')")], ids=["router", "python -m router"]
)  # fmt: skip
def test_ctrl_c_while_it_is_loaded_ends_it_quietly(program):
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
