"""A real Chromium before a real daemon with two simulated engines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from support.daemon import Daemon, Engine, service
from support.http import call

ADMIN_KEY, CLIENT_KEY = "the admin's key", "sk-of-a-client"
MODEL = "org/simulated"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class House:
    """The router and its engines."""

    router: Daemon
    engines: list[Engine]

    @cached_property
    def cookie(self) -> str:
        """Of one log-in for many tests: log-ins are few a minute."""
        answer = call(self.router.port, "POST", "/dashboard/login", {"key": ADMIN_KEY})
        cookie = answer.header("set-cookie") or ""
        return cookie.partition(";")[0].partition("=")[2]

    def log_in(self, page: Page, key: str = ADMIN_KEY) -> None:
        page.get_by_label("Admin key").fill(key)
        page.get_by_role("button", name="Log in").click()


@contextmanager
def open_house(folder: Path) -> Iterator[House]:
    """Two engines of one model, an organization, an admin key."""
    with ExitStack() as stack:
        engines = [
            stack.enter_context(
                Engine(folder, MODEL, "--seed", str(seed), "--answer-tokens", "2000")
            )
            for seed in (1, 2)
        ]
        config = {
            "server": {"admin_key_sha256": _sha(ADMIN_KEY), "drain_timeout_s": 1},
            "health": {"interval_s": 0.5, "timeout_s": 1, "unhealthy_after": 1},
            "organizations": [
                {
                    "id": "acme",
                    "daily_tokens": 1_000_000,
                    "keys": [{"id": "acme-1", "sha256": _sha(CLIENT_KEY)}],
                }
            ],
            "services": [
                service(f"sim-{gpu}", engine.url, gpu=str(gpu), group="sim", max_concurrency=4)
                for gpu, engine in enumerate(engines)
            ],
            "aliases": {"gpt-4o": MODEL},
        }
        yield House(stack.enter_context(Daemon(folder / "router", config)), engines)


@dataclass
class Watched:
    """What pages did that they should not.

    Attributes:
        complaints: errors and warnings of the console, and errors that nothing caught.
        strangers: requests off the router's own origin.
        asked: requests at all.
    """

    origin: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    asked: int = 0

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: line.type in {"error", "warning"} and self.complaints.append(line.text),
        )

    def _asked(self, url: str) -> None:
        self.asked += 1
        if urlsplit(url).netloc != self.origin:
            self.strangers.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One a module, since its event loop runs as long as it is open: no async test may meet it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all tests; a module whose tests break something has its own."""
    with open_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def watched(house: House) -> Watched:
    return Watched(urlsplit(house.router.url).netloc)


@pytest.fixture
def page(context: BrowserContext, house: House, watched: Watched) -> Page:
    """A page at the dashboard's door."""
    page = context.new_page()
    watched.watch(page)
    page.goto(f"{house.router.url}/dashboard")
    page.get_by_label("Admin key").wait_for()
    return page


@pytest.fixture
def view(context: BrowserContext, house: House, page: Page) -> Page:
    """A page that shows the router."""
    kept = {"name": "router_session", "value": house.cookie, "url": f"{house.router.url}/dashboard"}
    context.add_cookies([kept])
    page.reload()
    page.get_by_role("heading", name="sim-0").wait_for()
    return page
