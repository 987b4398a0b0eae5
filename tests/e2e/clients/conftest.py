"""The router before two engines, simulated or real, for the tests with official clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.daemon import Daemon, Engine, service

REAL_KEY = "backend-secret"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The router and what stands behind it.

    Attributes:
        router: the daemon.
        model: served by both engines; `alias` stands for it.
        embeds: the engines take embeddings.
        context: tokens that fit; more is a 400 of the engine.
    """

    router: Daemon
    model: str
    alias: str
    embeds: bool
    context: int

    @property
    def base_url(self) -> str:
        return f"{self.router.url}/v1"


@pytest.fixture(
    scope="module", params=["simulated", pytest.param("real", marks=pytest.mark.real_vllm)]
)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start_module_daemon
) -> Iterator[Fleet]:
    """Two engines of one kind behind the router."""
    with ExitStack() as stack:
        if request.param == "real":
            urls, model, key = os.environ["VLLM_URLS"].split(","), "tiny", REAL_KEY
        else:
            folder = tmp_path_factory.mktemp("engines")
            urls, model, key = simulated(stack, folder), "org/simulated", None
        more = {"api_key": key} if key else {}
        rows = [service(f"engine-{n}", url, group="chat", **more) for n, url in enumerate(urls)]
        router = start_module_daemon({"services": rows, "aliases": {"gpt-4o": model}})
        is_simulated = request.param == "simulated"
        yield Fleet(router, model, "gpt-4o", embeds=is_simulated, context=512)


def simulated(stack: ExitStack, folder: Path) -> list[str]:
    """Start two simulated engines; their URLs."""
    more = ("--max-model-len", "512", "--time-scale", "20")
    return [
        stack.enter_context(Engine(folder, "org/simulated", "--seed", str(seed), *more)).url
        for seed in (1, 2)
    ]
