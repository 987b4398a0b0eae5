"""The live view in Chromium while something breaks: a service, and the router itself."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from browser.conftest import open_house
from browser.visits import SLOW_MS, card

pytestmark = pytest.mark.browser


@pytest.fixture
def house(tmp_path):
    with open_house(tmp_path) as opened:
        yield opened


def test_a_service_that_dies_is_seen_without_a_reload_of_the_page(view, house):
    dying = card(view, "sim-1")
    expect(dying).to_contain_text("Healthy")
    house.engines[1].kill()
    expect(dying).to_contain_text("Down", timeout=SLOW_MS)
    expect(card(view, "sim-0")).to_contain_text("Healthy")
    expect(view.locator("#tiles")).to_contain_text("1 of 2")
    expect(view.get_by_role("region", name="Needs attention")).to_contain_text(
        "sim-1 has been down"
    )
    expect(view.locator("#events li").first).to_contain_text("sim-1 is down")


def test_a_model_that_nothing_serves_is_told_first(view, house):
    for engine in house.engines:
        engine.kill()
    notices = view.get_by_role("region", name="Needs attention").locator(".notice")
    expect(notices.first).to_contain_text("No healthy service for org/simulated", timeout=SLOW_MS)


def test_a_file_that_is_refused_is_told_with_its_reason(view, house):
    path = house.router.config_path
    path.write_text(path.read_text().replace("max_concurrency: 4", "max_concurrency: -4"))
    notices = view.get_by_role("region", name="Needs attention")
    expect(notices).to_contain_text("The configuration file was refused", timeout=SLOW_MS)
    expect(view.locator("#events li").first).to_contain_text("max_concurrency")


def test_a_router_that_goes_away_is_told_and_what_is_shown_is_marked_as_old(view, house):
    link = view.get_by_role("banner").get_by_role("status")
    expect(link).to_have_text("Live")
    house.router.kill()
    expect(link).to_contain_text("Reconnecting", timeout=SLOW_MS)
    expect(view.locator("#view")).to_have_attribute("data-stale", "true")
    expect(card(view, "sim-0")).to_be_visible()


def test_a_lost_connection_is_taken_up_again(view, context):
    link = view.get_by_role("banner").get_by_role("status")
    context.set_offline(True)
    view.evaluate("dispatchEvent(new Event('offline'))")
    expect(link).not_to_have_text("Live", timeout=SLOW_MS)
    context.set_offline(False)
    expect(link).to_have_text("Live", timeout=SLOW_MS)
    expect(view.locator("#view")).not_to_have_attribute("data-stale", "true")
