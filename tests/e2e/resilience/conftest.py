"""Settings under which everything that takes time takes little of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.resilience.engines import LostEngine

INTERVAL_S = 0.5
HUNG_AFTER_S = 2.0


@pytest.fixture
def quick() -> dict[str, Any]:
    """Sections of a configuration that notices quickly."""
    return {
        "health": {
            "interval_s": INTERVAL_S, "timeout_s": 0.5, "unhealthy_after": 2,
            "hung_after_s": HUNG_AFTER_S, "metrics_interval_s": 0.2,
        },
        "ejection": {"consecutive_failures": 3, "base_s": 0.3, "max_s": 1},
        "server": {"idle_timeout_s": 3, "drain_timeout_s": 20},
    }  # fmt: skip


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[..., LostEngine]]:
    """Start an engine that ends with the test."""
    with ExitStack() as stack:

        def start(*more: str) -> LostEngine:
            engine = LostEngine(tmp_path / "engines", "tiny", *more)
            stack.callback(engine.kill)
            return stack.enter_context(engine)

        yield start
