"""Who sees the dashboard in Chromium: log-in, log-out, and where the keys are kept."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from browser.conftest import ADMIN_KEY, CLIENT_KEY
from browser.visits import SLOW_MS, ask, card

pytestmark = pytest.mark.browser
KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


def test_the_admin_key_opens_the_view_and_it_stays_open(page, house):
    expect(page.get_by_role("heading", name="Services")).to_be_hidden()
    house.log_in(page)
    expect(page.get_by_role("heading", name="Services")).to_be_visible()
    page.reload()
    expect(card(page, "sim-0")).to_be_visible()
    expect(page.get_by_label("Admin key")).to_be_hidden()


def test_a_wrong_key_is_refused_in_words_and_nothing_is_shown(page, house):
    house.log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("This is not the admin key.")
    expect(page.locator("#view")).to_be_hidden()
    assert page.locator("li.card").count() == 0


def test_the_session_is_out_of_reach_of_scripts(page, context, house):
    house.log_in(page)
    expect(card(page, "sim-0")).to_be_visible()
    (cookie,) = context.cookies(f"{house.router.url}/dashboard")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""
    assert cookie["value"] not in page.evaluate(KEPT)
    assert ADMIN_KEY not in page.evaluate(KEPT)


def test_a_log_out_closes_the_view_and_forgets_the_key_of_the_playground(page, house):
    house.log_in(page)
    page.get_by_label("API key").fill(CLIENT_KEY)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    expect(page.locator("#view")).to_be_hidden()
    assert page.locator("#play-key").input_value() == ""
    page.reload()
    expect(page.get_by_label("Admin key")).to_be_visible()


def test_the_pasted_key_is_kept_nowhere(view):
    ask(view, "Hello")
    expect(view.locator("#play-told")).to_contain_text("tokens", timeout=SLOW_MS)
    assert CLIENT_KEY not in view.evaluate(KEPT)
    view.reload()
    expect(card(view, "sim-0")).to_be_visible()
    assert view.locator("#play-key").input_value() == ""


def test_it_can_be_used_by_keyboard_alone(page):
    page.keyboard.type(ADMIN_KEY)  # the field has the focus
    page.keyboard.press("Enter")
    expect(card(page, "sim-0")).to_be_visible()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"theme", "logout", "play-model", "play-key", "play-text", "play-send"} <= reached
