"""What tests of the dashboard do on its page."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

from browser.conftest import CLIENT_KEY

SLOW_MS = 20_000


def card(page: Page, name: str) -> Locator:
    """A service's card."""
    return page.locator("li.card").filter(has=page.get_by_role("heading", name=name, exact=True))


def ask(page: Page, text: str, *, key: str = CLIENT_KEY, tokens: int = 20) -> None:
    """Send a message in the playground."""
    page.get_by_label("API key").fill(key)
    page.get_by_label("Most tokens").fill(str(tokens))
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
