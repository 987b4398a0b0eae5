"""Logging: structlog over the standard library; JSON for machines, columns for people."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

from router.line_writer import LineWriter

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class _Through(logging.Handler):
    """Hands lines to who writes them, so that logging never waits."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over one line."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of logging: a bad record is its own fault
            self.handleError(record)
        else:
            self._writer.put(line.encode("utf-8", "backslashreplace") + b"\n", 1)


def is_console(log_format: LogFormat) -> bool:
    """Whether lines are columns for people; else they are JSON."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def _has_colours() -> bool:
    """Whether stderr is a terminal with colours, and nobody has set NO_COLOR (no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stderr.isatty()


def configure_logging(
    log_format: LogFormat = "auto", level: LogLevel = "info", writer: LineWriter | None = None
) -> None:
    """Set up logging for the process; to stderr, so that a command's output stays its own.

    `auto` writes columns on a terminal and JSON elsewhere. With a `writer` nothing here waits for
    whoever reads the lines; without one they are written at once.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=_has_colours())
        if is_console(log_format)
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if writer is None else _Through(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a room, named as the room."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
