"""`router check`: is the configuration right, and what would it serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.cli.check_diff import print_diff
from router.cli.check_sources import Found, found_in_docker, found_in_files
from router.cli.state import StateDirOption
from router.config import ConfigurationError, Settings, load, service_specs
from router.config.settings import OrganizationSettings
from router.fleet.model_list import judge
from router.fleet.prober import fault_of
from router.model import ServiceSpec

_PROBES_AT_ONCE = 64
_MAX_MODELS_BYTES = 4 * 1024 * 1024


def check(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The configuration file.", show_default=True)
    ] = Path("backends.yaml"),
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask every service for its health and its models.")
    ] = False,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff", help="Print what a reload would change in the daemon that runs, instead."
        ),
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Validate the configuration and print what would be served, or what would change.

    The files of discovery.files are a part of it; Docker is asked with --probe alone.

    Exit status: 0 right; 1 a service or Docker did not answer the probe, a service does not list
    a model that is configured, a container cannot be a service, or a reload would be refused;
    2 wrong configuration, or it is not known what runs.
    """
    try:
        settings = load(config)
    except ConfigurationError as error:
        _print_problems(str(error))
        raise typer.Exit(2) from None
    files = found_in_files(settings)
    _print_problems(*(f"warning: {each}" for each in files.warnings))
    if files.problems:
        _print_problems(*files.problems)
        raise typer.Exit(2)
    console = _console()
    is_right = True
    if diff:
        is_right = print_diff(settings, state_dir)
    else:
        _print_served(settings, files, console)
        console.print(f"{escape(str(config))}: valid", soft_wrap=True)
    if probe:
        is_right = _print_probes(settings, files, console) and is_right
    if not is_right:
        raise typer.Exit(1)


def _print_problems(*problems: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(escape(problem))


def _console() -> Console:
    """Make a console that is wide where nobody's terminal is: a pipe should get whole URLs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)
    return console


# -- what would be served ----------------------------------------------------------------------


def _print_served(settings: Settings, files: Found, console: Console) -> None:
    for table in tables(settings):
        console.print(table)
    if files.specs:
        console.print(_services(files.specs, files.title))
    for note in notes(settings):
        console.print(escape(note), soft_wrap=True)


def tables(settings: Settings) -> Iterator[Table]:
    """Everything the configuration serves, one table a kind; kinds that are empty are left out."""
    if settings.services:
        yield _services(service_specs(settings))
    if settings.organizations:
        yield _organizations(settings.organizations)
    if settings.routes:
        rows = [(route.path, route.model, route.upstream_path) for route in settings.routes]
        yield _table("Routes", ("path", "model", "upstream path"), rows)
    if settings.aliases:
        yield _table("Aliases", ("alias", "model"), list(settings.aliases.items()))


def notes(settings: Settings) -> Iterator[str]:
    """What the tables do not tell, a sentence each."""
    server = settings.server
    yield f"Listens on {server.host}, port {server.port or 'that is free'}."
    yield f"Chooses by {settings.routing.policy}."
    if not any(organization.keys for organization in settings.organizations):
        yield "No keys are configured: unless the state database holds some, everybody may call."
    docker = settings.discovery.docker
    if docker.enabled:
        yield (
            f"More services come from Docker labels: {docker.endpoint}, network {docker.network}; "
            "--probe asks for them."
        )
    if settings.discovery.files is not None:
        yield f"More services come from the files of {settings.discovery.files}, as they change."


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _services(specs: tuple[ServiceSpec, ...], title: str = "Services") -> Table:
    columns = ("service", "url", "models", "group", "gpu", "weight", "at once", "key")
    rows = [
        (
            spec.name,
            spec.url,
            "asked of it" if spec.models is None else "\n".join(spec.models),
            spec.group,
            spec.gpu or "",
            str(spec.weight),
            _limit(spec.max_concurrency),
            "yes" if spec.api_key else "no",
        )
        for spec in specs
    ]
    return _table(title, columns, rows)


def _organizations(organizations: tuple[OrganizationSettings, ...]) -> Table:
    columns = ("organization", "tokens a day", "tokens a month", "requests a day", "keys")
    rows = [
        (
            organization.id,
            _limit(organization.daily_tokens),
            _limit(organization.monthly_tokens),
            _limit(organization.daily_requests),
            "\n".join(_key(organization)),
        )
        for organization in organizations
    ]
    return _table("Organizations", columns, rows)


def _key(organization: OrganizationSettings) -> Iterator[str]:
    for key in organization.keys:
        expires = f", expires {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else ""
        yield f"{key.id}: {' '.join(key.models)}{expires}"


def _limit(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"


# -- what answers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """What a service answered.

    Attributes:
        service: its name.
        state: `healthy`, `unhealthy`, or `unreachable`.
        latency_ms: of the health path; None without an answer.
        models: it lists; empty without an answer.
        detail: why it is not healthy, or what does not fit the configuration.
    """

    service: str
    state: str
    latency_ms: float | None = None
    models: tuple[str, ...] = ()
    detail: str = ""


async def probe_services(specs: tuple[ServiceSpec, ...], timeout_s: float) -> list[Probe]:
    """Ask every service for its health and models, in the order of `specs`; never generates."""
    slots = asyncio.Semaphore(_PROBES_AT_ONCE)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_PROBES_AT_ONCE),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    async with session:
        return await asyncio.gather(*(_probe(session, slots, spec) for spec in specs))


async def _probe(
    session: aiohttp.ClientSession, slots: asyncio.Semaphore, spec: ServiceSpec
) -> Probe:
    headers = {"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}
    async with slots:
        try:
            started = time.perf_counter()
            status, _ = await _get(session, spec.url + spec.health_path, headers)
            latency_ms = (time.perf_counter() - started) * 1000
            if status != 200:
                detail = f"{spec.health_path} answers {status}"
                return Probe(spec.name, "unhealthy", latency_ms, detail=detail)
            status, body = await _get(session, spec.url + "/v1/models", headers)
        except TimeoutError:
            return Probe(spec.name, "unreachable", detail="no answer in time")
        except aiohttp.ClientError as error:
            return Probe(spec.name, "unreachable", detail=fault_of(error))
    listing = judge(spec, status, body)
    state = "healthy" if listing.fault is None else "unhealthy"
    models = tuple(card.id for card in listing.cards or ())
    return Probe(spec.name, state, latency_ms, models, listing.fault or listing.mismatch or "")


async def _get(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> tuple[int, bytes | None]:
    """The status and the body; None for a body that is over the bound."""
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_MODELS_BYTES:
                return response.status, None
        return response.status, bytes(body)


def _print_probes(settings: Settings, files: Found, console: Console) -> bool:
    """Ask Docker for its containers, probe all services, and print; tells whether all is well."""
    specs = (*service_specs(settings), *files.specs)
    docker = found_in_docker(settings, {spec.name for spec in specs})
    if docker.specs:
        console.print(_services(docker.specs, docker.title))
    _print_problems(*docker.problems)
    specs += docker.specs
    probes = asyncio.run(probe_services(specs, settings.health.timeout_s))
    rows = [
        (
            probe.service,
            probe.state,
            "" if probe.latency_ms is None else f"{probe.latency_ms:.1f} ms",
            "\n".join(probe.models),
            probe.detail,
        )
        for probe in probes
    ]
    console.print(_table("Probes", ("service", "state", "latency", "models", "detail"), rows))
    return not docker.problems and all(
        probe.state == "healthy" and not probe.detail for probe in probes
    )
