"""`router top`: a live table of services in the terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.live import Live

from router.cli.state import fail
from router.cli.top_columns import TITLES
from router.cli.top_keys import keys
from router.cli.top_source import Picture, Unanswered, fetch
from router.cli.top_view import View, pressed, render

_TIMEOUT_S = 5.0
_PIPE_WIDTH = 220
_KEY_VARIABLE = "ROUTER_ADMIN_KEY"


def top(
    *,
    url: Annotated[
        str, typer.Option(envvar="ROUTER_URL", help="Base URL of the router.")
    ] = "http://127.0.0.1:8000",
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help=f"One of: {', '.join(TITLES)}.")
    ] = TITLES[0],
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"File that holds the admin key; else {_KEY_VARIABLE} is taken."),
    ] = None,
) -> None:
    """Watch a router: who is healthy, what runs, what waits, how fast it goes.

    From addresses in server.status_allow, by default loopback, no key is needed; with the admin
    key organizations are shown too. Where the output is no terminal the table is printed once.

    Exit status: 0 done; 1 no router answers, or it asks for a key; 2 wrong usage.
    """
    if sort not in TITLES:
        fail(f"--sort {sort}: there is no such column; write one of {', '.join(TITLES)}", status=2)
    base = url.rstrip("/")
    if not base.startswith(("http://", "https://")):
        fail(f"--url {url}: write http://HOST:PORT or https://HOST:PORT", status=2)
    screen = Screen(base, interval, View(TITLES.index(sort)), _key(key_file))
    try:
        asyncio.run(screen.print_once() if once or not sys.stdout.isatty() else screen.watch())
    except Unanswered as error:
        fail(str(error), status=1)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _key(path: Path | None) -> str | None:
    """The admin key, or None; ends with status 2 where the file does not hold one."""
    if path is None:
        return os.environ.get(_KEY_VARIABLE, "").strip() or None
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--key-file {path} cannot be read: {error}", status=2)
    if not key or not key.isprintable() or not key.isascii():
        fail(f"--key-file {path} holds no key: write the admin key and nothing else", status=2)
    return key


class Screen:
    """What is on the terminal, and what keeps it up to date.

    Args:
        url: the router's, without a trailing slash.
        interval_s: between two looks.
        view: to begin with.
        key: the admin key; None: asked without one.
    """

    def __init__(self, url: str, interval_s: float, view: View, key: str | None) -> None:
        self._url = url
        self._interval_s = interval_s
        self._view = replace(view, has_key=key is not None)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._console = Console(highlight=False)
        self._picture: Picture | None = None
        self._live: Live | None = None
        self._stop = asyncio.Event()

    async def print_once(self) -> None:
        """Print one picture.

        Raises:
            Unanswered: there is none.
        """
        async with self._session() as session:
            picture = await fetch(session, self._url)
        if not self._console.is_terminal:
            self._console.width = _PIPE_WIDTH
        width = self._console.width
        self._console.print(render(picture, self._view, url=self._url, width=width, height=None))

    async def watch(self) -> None:
        """Show pictures until `q`, Ctrl-C, SIGTERM or the terminal's end.

        Raises:
            Unanswered: there was no first one. Later ones that fail are told on the screen.
        """
        async with self._session() as session:
            self._picture = await fetch(session, self._url)
            with ExitStack() as stack:
                self._take_signals(stack)
                self._live = stack.enter_context(
                    Live(console=self._console, screen=True, auto_refresh=False)
                )
                if sys.stdin.isatty():
                    stack.enter_context(keys(sys.stdin.fileno(), self._on_key, self._stop.set))
                self._draw()
                await self._keep_up(session)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _keep_up(self, session: aiohttp.ClientSession) -> None:
        while not await self._stopped():
            try:
                self._picture = await fetch(session, self._url)
                error = None
            except Unanswered as unanswered:
                error = str(unanswered)
            self._view = replace(self._view, error=error)
            self._draw()

    async def _stopped(self) -> bool:
        """Wait for the next look; True where the end comes first."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    def _on_key(self, key: str) -> None:
        if key == "q":
            self._stop.set()
        elif self._picture is not None:
            view = pressed(self._view, key)
            last = max(0, len(self._picture.services) - 1)
            self._view = replace(view, top=min(view.top, last))
            self._draw()

    def _draw(self) -> None:
        if self._live is None or self._picture is None:
            return
        width, height = self._console.size
        screen = render(self._picture, self._view, url=self._url, width=width, height=height)
        self._live.update(screen, refresh=True)

    def _take_signals(self, stack: ExitStack) -> None:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGINT: self._stop.set,
            signal.SIGTERM: self._stop.set,
            signal.SIGHUP: self._stop.set,
            signal.SIGWINCH: self._draw,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)
