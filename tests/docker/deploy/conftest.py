"""One deployment for all of these tests: an engine has room for one, since its names are fixed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import deploy_images as images
from support.deployment import BASE, Deployment, objects

OURS = ("inference-", "vllm-")


def _ours() -> list[str]:
    return [name for names in objects().values() for name in names if name.startswith(OURS)]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A checkout with its images built but for the router's; what it left is removed at the end."""
    assert not _ours(), f"this engine has a deployment already, which is left alone: {_ours()}"
    folder = tmp_path_factory.mktemp("deployment")
    for name, build in (("base", images.build_base), ("nginx", images.build_nginx)):
        context: Path = folder / name
        context.mkdir()
        build(context, BASE)
    deployment = Deployment(folder)
    yield deployment
    deployment.run("stop-all.sh", "--purge")


@pytest.fixture
def simulated(checkout: Deployment) -> Deployment:
    """With router, nginx and simulated engines running; nothing of it is done if they are."""
    checkout.succeed("start-all.sh", "--sim")
    return checkout


@pytest.fixture
def stopped(checkout: Deployment) -> Iterator[Deployment]:
    """With nothing running, before and after."""
    checkout.succeed("stop-all.sh", "--purge")
    yield checkout
    checkout.succeed("stop-all.sh", "--purge")
