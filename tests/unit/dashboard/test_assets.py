"""The page's files: all of them here, nothing from elsewhere, nothing inline."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from router.dashboard.assets import Assets
from router.errors import UnknownPath
from unit.api.asking import asking

STATIC = files("router.dashboard").joinpath("static")
NAMES = sorted(file.name for file in STATIC.iterdir())
TEXTS = {name: STATIC.joinpath(name).read_text() for name in NAMES}
DANGEROUS = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
    r"|setAttribute\(\"style"
)
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


@pytest.fixture(scope="module")
def assets() -> Assets:
    return Assets()


def test_the_page_is_html(assets):
    answer = assets.page(asking("/dashboard"))
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served(assets, name):
    assert assets.asset(asking(f"/dashboard/{name}")).body == TEXTS[name].encode()


@pytest.mark.parametrize("name", ["", "nope.js", "../assets.py", "%2e%2e/assets.py", "app.js/"])
def test_nothing_else_is(assets, name):
    with pytest.raises(UnknownPath):
        assets.asset(asking(f"/dashboard/{name}"))


def test_every_file_forbids_what_is_not_the_routers_own(assets):
    policy = dict(assets.page(asking("/dashboard")).headers)["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "connect-src": "'self'", "img-src": "'self' data:", "form-action": "'self'",
        "base-uri": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_file_says_how_it_may_be_used(assets, name):
    headers = dict(assets.asset(asking(f"/dashboard/{name}")).headers)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "content-security-policy" in headers


def test_what_the_browser_has_already_is_not_sent_again(assets):
    path = "/dashboard/app.js"
    tag = dict(assets.asset(asking(path)).headers)["etag"]
    again = assets.asset(asking(path, (b"if-none-match", tag.encode())))
    assert (again.status, again.body) == (304, b"")
    other = assets.asset(asking(path, (b"if-none-match", b'"other"')))
    assert other.status == 200


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_site(name):
    allowed = {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.[\w./-]+", TEXTS[name])) <= allowed


def test_the_page_has_no_script_or_style_of_its_own():
    page = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_code_or_markup_of_text(name):
    assert not re.search(DANGEROUS, TEXTS[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_import_is_there(name):
    imported = re.findall(r'from "\./([^"]+)"', TEXTS[name])
    assert set(imported) <= set(NAMES)
    assert name == "app.js" or any(f'"./{name}"' in TEXTS[other] for other in SCRIPTS)
