"""The live view in Chromium while all is well: what runs, who uses what, the playground."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

from browser.conftest import CLIENT_KEY
from browser.visits import SLOW_MS, ask, card
from support.http import call, chat

pytestmark = pytest.mark.browser
GROUND = "getComputedStyle(document.body).backgroundColor"
# Notes how long the answer on the screen is, each time it grows.
WATCH_ANSWER = """() => {
  window.lengths = [];
  const talk = document.getElementById("talk");
  new MutationObserver(() => {
    const length = talk.querySelector("[data-role=assistant] .turn-text")?.textContent.length ?? 0;
    if (length > (lengths.at(-1)?.[0] ?? 0)) lengths.push([length, performance.now()]);
  }).observe(talk, {childList: true, subtree: true, characterData: true});
}"""


def test_what_runs_is_seen_while_it_runs(view):
    ask(view, "Tell me of routers.", tokens=600)
    running = view.locator("li.card", has_text="1 of 4")
    expect(running).to_have_count(1, timeout=SLOW_MS)
    view.get_by_role("button", name="Stop").click()
    expect(running).to_have_count(0, timeout=SLOW_MS)


def test_an_organizations_use_is_seen(view, house):
    requests = view.locator("#organizations .quota", has_text="Requests today")
    before = requests.inner_text()
    headers = (("authorization", f"Bearer {CLIENT_KEY}"),)
    body = chat("gpt-4o", max_tokens=5)
    assert call(house.router.port, "POST", "/v1/chat/completions", body, headers).status == 200
    expect(requests).not_to_have_text(before, use_inner_text=True, timeout=SLOW_MS)
    expect(view.locator("#organizations")).to_contain_text("acme")


def test_the_playground_streams_word_by_word(view):
    view.evaluate(WATCH_ANSWER)
    ask(view, "Count.", tokens=120)
    expect(view.locator("#play-told")).to_contain_text("120 tokens", timeout=SLOW_MS)
    lengths = view.evaluate("lengths")
    # 120 tokens at 60 a second: what is on the screen must not grow in a few lumps.
    assert len(lengths) >= 30
    assert lengths[-1][1] - lengths[0][1] > 1000
    expect(view.locator("#play-told")).to_contain_text("answered by sim-")


def test_the_playground_tells_why_a_request_was_refused(view):
    ask(view, "Hello", key="sk-wrong")
    expect(view.locator("#talk")).to_contain_text("401: This API key is not valid")
    expect(view.get_by_role("button", name="Send")).to_be_enabled()


def test_a_talk_goes_on_with_what_was_said(view):
    for _ in range(2):
        ask(view, "Hello")
        expect(view.get_by_role("button", name="Send")).to_be_enabled(timeout=SLOW_MS)
    with view.expect_request("**/v1/chat/completions") as sent:
        ask(view, "Again")
    roles = [message["role"] for message in sent.value.post_data_json["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


def test_nothing_is_complained_of_and_nothing_leaves_the_origin(page, house, watched):
    """A whole visit: log-in, chart after chart, every theme, a chat, log-out."""
    house.log_in(page)
    for name in ("In flight", "KV cache", "TTFT p95", "Tokens/s"):
        page.locator("#series").get_by_text(name).click()
    for _ in range(3):
        page.get_by_role("button", name="Theme").click()
    ask(page, "Hello")
    expect(page.locator("#play-told")).to_contain_text("tokens", timeout=SLOW_MS)
    time.sleep(6)  # a point of the history comes every five seconds
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    assert watched.asked > 15
    assert watched.complaints == []
    assert watched.strangers == []


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1440])
def test_nothing_overflows_to_the_side(view, width):
    view.set_viewport_size({"width": width, "height": 844})
    assert view.evaluate("document.documentElement.scrollWidth") <= width


def test_the_theme_is_the_systems_until_one_is_chosen(view):
    view.emulate_media(color_scheme="light")
    light = view.evaluate(GROUND)
    view.emulate_media(color_scheme="dark")
    assert view.evaluate(GROUND) != light
    view.get_by_role("button", name="Theme").click()
    assert view.evaluate(GROUND) == light
    view.reload()
    expect(card(view, "sim-0")).to_be_visible()
    assert view.evaluate(GROUND) == light
