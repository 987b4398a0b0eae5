"""The loop that commands run on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("uvloop")

_COUNT_THREADS = """
import asyncio, os
from router.cli.loops import loop_factory

async def look_up():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    print(len(os.listdir("/proc/self/task")))

with asyncio.Runner(loop_factory=loop_factory()) as runner:
    runner.run(look_up())
"""


def threads_after_a_lookup(**environment: str) -> int:
    """How many threads a process of its own has once it has looked a name up."""
    inherited = {name: at for name, at in os.environ.items() if name != "UV_THREADPOOL_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_THREADS],
        env=inherited | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_names_that_do_not_resolve_leave_threads_for_others():
    assert threads_after_a_lookup() >= 64


def test_an_operator_may_say_how_many_threads():
    assert threads_after_a_lookup(UV_THREADPOOL_SIZE="8") < 16
