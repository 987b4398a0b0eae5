"""axe-core over the dashboard, in light and dark, wide and narrow: nothing serious."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import House, open_house
from browser.visits import SLOW_MS, ask, card

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """With a dead service: its card, its notice and its event are looked at too."""
    with open_house(tmp_path_factory.mktemp("house")) as opened:
        opened.engines[1].kill()
        yield opened


def violations(page: Page) -> list[str]:
    """Serious and critical ones, with the elements that have them."""
    page.evaluate(Path(os.environ["AXE_PATH"]).read_text() + ";0")
    result: dict[str, Any] = page.evaluate("axe.run(document)")
    assert len(result["passes"]) > 10, "axe has looked at next to nothing"
    return [
        f"{found['impact']} {found['id']}: {[node['target'] for node in found['nodes']]}"
        for found in result["violations"]
        if found["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_view_has_no_serious_violation(view, scheme, width):
    view.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    view.set_viewport_size({"width": width, "height": 844})
    expect(card(view, "sim-1")).to_contain_text("Down", timeout=SLOW_MS)
    ask(view, "Hello")
    expect(view.locator("#play-told")).to_contain_text("tokens", timeout=SLOW_MS)
    ask(view, "Hello", key="sk-wrong")
    expect(view.locator("#talk")).to_contain_text("401")
    assert violations(view) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_door_has_no_serious_violation(page, house: House, scheme):
    page.emulate_media(color_scheme=scheme)
    house.log_in(page, "wrong")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert violations(page) == []
