"""`router serve`: run the daemon."""

from __future__ import annotations

import asyncio
import importlib
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router.cli.loops import loop_factory
from router.cli.state import DEFAULT_CONFIG, ConfigOption, StateDirOption, fail, state_path
from router.config import ConfigurationError, Settings, load
from router.config.problems import Problem, key_of
from router.config.settings import ServerSettings
from router.config.watching import ConfigWatcher
from router.config.wording import location_of, message_of
from router.daemon import Daemon, Spans
from router.line_writer import LineWriter
from router.log import LogFormat, LogLevel, configure_logging, is_console
from router.proxy.access_log import AccessLog, Form
from router.storage import StorageError


def serve(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, instead of server.host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, instead of server.port; 0 takes a free one."),
    ] = None,
    state_dir: StateDirOption = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: columns on a terminal, JSON elsewhere.")
    ] = "auto",
    log_level: Annotated[LogLevel, typer.Option(help="What is logged at all.")] = "info",
    access_log: Annotated[bool, typer.Option(help="One line a request, beside the log.")] = True,
    access_log_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Of the successful requests, this share gets a line."),
    ] = 1.0,
    otel: Annotated[
        bool, typer.Option(help="Send a span a request; the OTEL_ variables say where to.")
    ] = False,
) -> None:
    """Run the router. SIGTERM drains, a second one ends at once.

    A change of the file, or SIGHUP, reloads it; one that is wrong is refused, and the log says why.
    """
    writer = LineWriter(sys.stderr.buffer)
    configure_logging(log_format, log_level, writer)
    form: Form = "console" if is_console(log_format) else "json"
    lines = AccessLog(writer, form, access_log_share) if access_log else None
    try:
        _serve(config, host, port, state_dir, lines, _spans() if otel else None)
    finally:
        writer.close()


def _serve(  # noqa: PLR0917 - the options, in their order
    config: Path,
    host: str | None,
    port: int | None,
    state_dir: Path | None,
    access_log: AccessLog | None,
    spans: Spans | None,
) -> NoReturn:
    """Run the daemon to its end; leaves with its exit status."""
    _take_all_descriptors()

    def read() -> Settings:
        return _overridden(load(config), host, port)

    watcher = ConfigWatcher(config)
    try:
        settings = read()
    except ConfigurationError as error:
        fail(str(error), status=2)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            daemon = partial(
                Daemon,
                settings,
                read,
                state_path(settings, state_dir),
                watcher=watcher,
                access_log=access_log,
                spans=spans,
                pinned=_pinned(host, port),
            )
            status = runner.run(_run(daemon))
    except StorageError as error:
        fail(str(error), status=1)
    except OSError as error:
        address = f"{settings.server.host}:{settings.server.port}"
        fail(f"cannot listen on {address}: {error.strerror or error}", status=1)
    raise typer.Exit(status)


def _take_all_descriptors() -> None:
    """Raise the soft limit to the hard one: a connection on either side takes a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spans() -> Spans:
    """An optional part: loaded only where it is asked for."""
    try:
        telemetry = importlib.import_module("router.telemetry")
    except ImportError as error:
        fail(f"--otel needs {error.name}: pip install '.[otel]'", status=2)
    spans: Spans = telemetry.exporting()
    return spans


async def _run(make: Callable[[], Daemon]) -> int:
    return await make().run()


def _pinned(host: str | None, port: int | None) -> tuple[str, ...]:
    """Keys that the command line decides."""
    given = {"server.host": host, "server.port": port}
    return tuple(key for key, value in given.items() if value is not None)


def _overridden(settings: Settings, host: str | None, port: int | None) -> Settings:
    """The settings with what the command line says in the place of what the file says.

    Raises:
        ConfigurationError: an option is wrong; told as the same value of the file would be.
    """
    changes = {"host": host, "port": port}
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return settings
    try:
        server = ServerSettings.model_validate(settings.server.model_dump() | given)
    except ValidationError as error:
        raise ConfigurationError(tuple(map(_wrong_option, error.errors()))) from None
    return settings.model_copy(update={"server": server})


def _wrong_option(error: ErrorDetails) -> Problem:
    option = f"--{key_of(location_of(error))}"
    return Problem(option, None, "", message_of(error, show_value=True))
