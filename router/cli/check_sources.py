"""What `router check` finds where services come from beside the configuration file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from router.config import Settings
from router.config.secret_files import read_secret
from router.discovery.docker_source import docker_plan
from router.discovery.engine import DockerEngine, EngineError
from router.discovery.files_source import Folder, files_plan, merge, read_folder
from router.discovery.registry import Registry
from router.discovery.session import look_at_all
from router.model import ServiceSpec


@dataclass(frozen=True, slots=True)
class Found:
    """What a source would publish.

    Attributes:
        title: what a table of it is called.
        specs: its services.
        problems: what is wrong, a sentence each.
        warnings: what is not wrong, and hardly meant so.
    """

    title: str = ""
    specs: tuple[ServiceSpec, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def found_in_files(settings: Settings) -> Found:
    """Read the folder `discovery.files`; nothing where there is none."""
    plan = files_plan(settings)
    if plan is None:
        return Found()
    folder = read_folder(plan.folder, Folder())
    specs, doubles = merge(folder, plan)
    problems = [str(each) for state in folder.files.values() for each in state.problems]
    problems += [str(each) for each in doubles]
    if folder.error is not None:
        problems.append(f"{folder.error}; make the folder, or leave discovery.files out")
    title = f"Services of {plan.folder}"
    return Found(title, specs, tuple(problems), tuple(folder.warnings))


def found_in_docker(settings: Settings, taken: Collection[str]) -> Found:
    """Ask the Docker engine for containers with labels; nothing where it is not to be asked.

    `taken` are names that belong to services of other sources.
    """
    plan = docker_plan(settings)
    if plan is None:
        return Found()
    registry = Registry()
    try:
        engine = DockerEngine(plan.endpoint)
        own = engine.own_container()
        inside = own is not None and plan.view.network in own.addresses
        found = look_at_all(engine, replace(plan.view, inside=inside), read_secret)
        engine.close()
    except EngineError as error:
        return Found(problems=(f"Docker: {error}",))
    registry.found(found, is_whole=True)
    problems = tuple(
        f"container {each.container}: {problem}"
        for each in registry.problems
        for problem in each.problems
    )
    return Found(f"Services of Docker, {plan.endpoint}", registry.specs(taken), problems)
