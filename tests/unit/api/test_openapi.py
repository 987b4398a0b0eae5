"""The reference: whole, true to the table of paths and to the errors, and safe to show."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from router.api.docs import DocsPages
from router.api.openapi import document
from router.api.openapi_paths import OPERATIONS
from router.errors import RouterError
from unit.api.asking import asking

WHOLE = document("1.2.3")
DOCS = DocsPages("1.2.3")
PAGE = DOCS.page(asking("/docs")).body.decode()


def references(value) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("reference", sorted(references(WHOLE)))
def test_every_reference_leads_somewhere(reference):
    place = WHOLE
    for part in reference.removeprefix("#/").split("/"):
        place = place[part]
    assert place


def test_every_schema_is_used():
    assert {f"#/components/schemas/{name}" for name in WHOLE["components"]["schemas"]} <= (
        references(WHOLE)
    )


def test_operations_have_names_of_their_own():
    names = [told["operationId"] for path in WHOLE["paths"].values() for told in path.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.path)
def test_every_error_of_an_operation_is_under_its_status(operation):
    responses = WHOLE["paths"][operation.path][operation.method]["responses"]
    for error in operation.errors:
        assert issubclass(error, RouterError)
        assert f"`{error.code}`" in responses[str(error.status)]["description"]


def test_what_is_always_there_is_required():
    schemas = WHOLE["components"]["schemas"]
    optional = {
        (name, field)
        for name, form in schemas.items()
        if name != "InferenceRequest"
        for field in form.get("properties", {})
        if field not in form.get("required", ())
    }
    assert optional == {("Stats", "organizations")}


def test_the_json_is_the_document():
    answer = DOCS.openapi(asking("/openapi.json"))
    assert json.loads(answer.body) == WHOLE
    assert answer.content_type == "application/json"


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed():
    assert Tags(PAGE).open == []


def test_the_page_has_no_script_no_inline_style_and_nothing_from_elsewhere():
    for tag, attributes in Tags(PAGE).tags:
        assert tag not in {"script", "style", "iframe", "img"}
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert attributes.get(name, "/").startswith(("/", "#"))


def test_every_link_within_the_page_has_its_target():
    tags = Tags(PAGE).tags
    targets = {attributes.get("id") for _, attributes in tags}
    links = {each["href"][1:] for _, each in tags if each.get("href", "").startswith("#")}
    assert links
    assert links <= targets


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.path)
def test_the_page_shows_every_operation(operation):
    assert f"<code>{operation.path}</code>" in PAGE
    assert operation.summary.replace("'", "&#x27;") in PAGE


def test_the_page_forbids_scripts():
    headers = dict(DOCS.page(asking("/docs")).headers)
    assert re.search(r"default-src 'none'", headers["content-security-policy"])
    assert "script-src" not in headers["content-security-policy"]


def test_the_style_is_served_as_css():
    assert DOCS.style(asking("/docs/docs.css")).content_type.startswith("text/css")
