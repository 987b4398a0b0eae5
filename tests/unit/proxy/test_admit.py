"""From a body to what is asked for, and back to the body that is sent."""

from __future__ import annotations

import json

import pytest

from router.errors import (
    InvalidJson,
    InvalidModel,
    MissingModel,
    ModelNotFound,
    NoHealthyBackend,
)
from router.fleet.catalog import Catalog
from router.openai.paths import CHAT, INFERENCE_PATHS
from router.proxy import admit
from router.proxy.admit import Entry, Wanted

QWEN = "Qwen/Qwen2.5-7B"
CATALOG = Catalog(
    members={QWEN: (), "tiny": ()}, aliases={"gpt-4o": QWEN}, short_names={"Qwen2.5-7B": (QWEN,)}
)
PLAIN = Entry(CHAT)
ROUTE = Entry(CHAT, model="gpt-4o")
AUDIO = INFERENCE_PATHS["/v1/audio/transcriptions"]
FORM_TYPE = "multipart/form-data; boundary=b"


class Sent:
    """A request that was read whole."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self._content_type = content_type

    def header(self, name: bytes) -> str | None:
        return self._content_type if name == b"content-type" else None


def read(entry: Entry, body: bytes, content_type: str, catalog: Catalog) -> Wanted:
    return admit.read(entry, Sent(body, content_type), catalog)


def form(*fields: tuple[str, str]) -> bytes:
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    )
    return f"{parts}--b--\r\n".encode()


def sent(entry: Entry, body: bytes, content_type: str = "application/json", **changes) -> bytes:
    """The body that goes to the engine."""
    return read(entry, body, content_type, CATALOG).with_changes(changes)


def test_a_body_with_a_full_name_is_sent_as_it_came():
    body = b' {"x" : [1e400], "model"\t:"tiny"} '
    wanted = read(PLAIN, body, "application/json", CATALOG)
    assert wanted.model == "tiny"
    assert wanted.with_changes({}) is body


@pytest.mark.parametrize("name", ["gpt-4o", "Qwen2.5-7B", "\\u0067pt-4o"])
def test_an_alias_or_short_name_is_spliced_and_nothing_else_is_touched(name):
    body = '{ "a":1, "model" : "%s" ,"z" :"\u00fc" }'
    assert sent(PLAIN, (body % name).encode()) == (body % QWEN).encode()


def test_changes_are_made_beside_the_model():
    body = b'{"model":"gpt-4o","max_tokens":9}'
    assert json.loads(sent(PLAIN, body, max_tokens=3)) == {"model": QWEN, "max_tokens": 3}


def test_changes_are_made_where_the_model_stays():
    assert sent(PLAIN, b'{"model":"tiny"}', n=1) == b'{"model":"tiny","n":1}'


def test_a_named_route_puts_its_model_into_a_body_without_one():
    assert json.loads(sent(ROUTE, b'{"a":1}')) == {"a": 1, "model": QWEN}


def test_a_named_route_puts_its_model_into_an_empty_object():
    assert sent(ROUTE, b"{}") == b'{"model":"%b"}' % QWEN.encode()


@pytest.mark.parametrize("told", ["tiny", "unknown", "gpt-4o", ""])
def test_a_named_routes_model_comes_before_the_bodys(told):
    body = b'{"model":"%b","a":1}' % told.encode()
    assert sent(ROUTE, body) == b'{"model":"%b","a":1}' % QWEN.encode()


def test_a_named_route_whose_model_the_body_names_is_sent_as_it_came():
    body = b'{"model": "%b"}' % QWEN.encode()
    assert sent(ROUTE, body) == body


def test_the_fields_that_limits_need_are_read():
    wanted = read(PLAIN, b'{"model":"tiny","stream":true,"n":2}', "", CATALOG)
    assert (wanted.fields.streams, wanted.fields.n, wanted.path) == (True, 2, CHAT)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/vnd.x+json"])
def test_json_is_read_whatever_its_media_type_says(content_type):
    assert read(PLAIN, b'{"model":"tiny"}', content_type, CATALOG).model == "tiny"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", InvalidJson),
        (b"{}", MissingModel),
        (b'{"model":""}', InvalidModel),
        (b'{"model":1}', InvalidModel),
        (b'{"model":"nope"}', ModelNotFound),
    ],
)
def test_a_body_that_names_no_model_of_ours_is_refused(body, error):
    with pytest.raises(error):
        read(PLAIN, body, "application/json", CATALOG)


def test_no_body_is_no_json_object():
    with pytest.raises(InvalidJson):
        read(PLAIN, b"", "application/json", CATALOG)


def test_a_route_to_a_model_that_nobody_has_told_of_may_work_again():
    """The configuration names it, so it is not unknown."""
    catalog = Catalog(configured={"gone"})
    with pytest.raises(NoHealthyBackend):
        read(Entry(CHAT, model="gone"), b"{}", "application/json", catalog)


# -- forms -----------------------------------------------------------------------------------------


def test_a_form_with_a_full_name_is_sent_as_it_came():
    body = form(("file", "RIFF"), ("model", "tiny"))
    wanted = read(Entry(AUDIO), body, FORM_TYPE, CATALOG)
    assert wanted.model == "tiny"
    assert wanted.with_changes({}) is body


@pytest.mark.parametrize("name", ["gpt-4o", "Qwen2.5-7B"])
def test_a_forms_alias_is_spliced_and_nothing_else_is_touched(name):
    fields = [("file", "\x00\n"), ("model", name), ("language", "en")]
    expected = form(("file", "\x00\n"), ("model", QWEN), ("language", "en"))
    assert sent(Entry(AUDIO), form(*fields), FORM_TYPE) == expected


def test_in_a_form_the_model_alone_is_changed():
    body = form(("model", "tiny"), ("max_tokens", "5"))
    assert sent(Entry(AUDIO), body, FORM_TYPE, max_tokens=1) == body


def test_a_named_routes_model_comes_before_the_forms():
    body = form(("model", "tiny"))
    assert sent(Entry(AUDIO, model="gpt-4o"), body, FORM_TYPE) == form(("model", QWEN))


def test_a_named_route_takes_a_form_without_a_model():
    wanted = read(Entry(AUDIO, model="gpt-4o"), form(("file", "RIFF")), FORM_TYPE, CATALOG)
    assert wanted.model == QWEN


def test_a_form_without_a_model_is_missing_model():
    with pytest.raises(MissingModel):
        read(Entry(AUDIO), form(("file", "RIFF")), FORM_TYPE, CATALOG)


def test_what_is_wanted_cannot_be_changed():
    wanted = Wanted(CHAT, "tiny", b"{}")
    with pytest.raises(AttributeError):
        wanted.model = "other"  # type: ignore[misc]
