"""Real answers of the running daemon, held against the models that the reference is drawn from."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from router.api import schema
from router.api.openapi_paths import OPERATIONS
from support.http import chat

GETS = {each.path.replace("{id}", "gpt-4o"): each for each in OPERATIONS if each.method == "get"}
MODELLED = {path: each for path, each in GETS.items() if isinstance(each.answer, type)}
KEYED = {path: each for path, each in GETS.items() if each.key != "open"}


def whole(value: BaseModel) -> set[str]:
    """Fields of the models that no answer here has filled."""
    return {name for name in type(value).model_fields if name not in value.model_fields_set}


@pytest.mark.parametrize("path", MODELLED)
def test_an_answer_is_what_its_model_says_and_nothing_more(ask, path):
    answer = ask("GET", path, GETS[path].key)
    assert answer.status == 200
    assert whole(MODELLED[path].answer.model_validate_json(answer.body)) == set()


def test_without_the_admin_key_stats_leave_organizations_out(router):
    found = schema.Stats.model_validate_json(router.get("/stats").body)
    assert whole(found) == {"organizations"}


def test_the_answers_were_not_empty(ask):
    services = schema.Services.model_validate(ask("GET", "/services", "admin").json).services
    assert {each.state for each in services} == {"healthy", "loading"}
    assert len(schema.Stats.model_validate(ask("GET", "/stats", "admin").json).organizations) == 2
    assert len(schema.Usage.model_validate(ask("GET", "/v1/usage", "client").json).windows) == 3
    assert len(schema.Models.model_validate(ask("GET", "/v1/models", "client").json).data) == 2


def test_an_explanation_is_what_its_model_says(ask):
    answer = ask("POST", "/explain", "admin", chat("gpt-4o", max_tokens=7))
    found = schema.Explanation.model_validate_json(answer.body)
    assert (found.model, found.path, found.choice) == ("tiny", "/v1/chat/completions", "up")
    assert found.reservation.completion_tokens == 7


def test_an_explanation_sends_nothing_and_reserves_nothing(ask, upstream):
    upstream.forget()
    before = ask("GET", "/v1/usage", "client").json
    assert ask("POST", "/explain?path=/v1/completions", "admin", chat()).status == 200
    assert [each for each in upstream.requests if each.method == "POST"] == []
    assert ask("GET", "/v1/usage", "client").json == before


def test_a_model_that_is_down_has_no_choice_and_a_reason(ask):
    answer = ask("POST", "/explain", "admin", chat("gone/model"))
    assert answer.json["choice"] is None
    assert answer.json["candidates"][0]["reason"].startswith("loading: ")


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(ask, path):
    answer, head = (ask(method, path, GETS[path].key) for method in ("GET", "HEAD"))
    assert head.status == answer.status
    assert head.header("content-type") == answer.header("content-type")
    assert head.body == b""


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_another_method_is_405_and_says_which_are_taken(ask, path, method):
    answer = ask(method, path, GETS[path].key)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    schema.Error.model_validate_json(answer.body)


def test_explain_takes_post_alone(ask):
    answer = ask("GET", "/explain", "admin")
    assert (answer.status, answer.header("allow")) == (405, "POST")


@pytest.mark.parametrize(
    ("method", "path"), [*(("GET", path) for path in KEYED), ("POST", "/explain")]
)
def test_from_outside_and_without_a_key_it_is_401(ask, method, path):
    answer = ask(method, path, body={} if method == "POST" else None)
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    assert schema.Error.model_validate_json(answer.body).error.code == "missing_api_key"


def test_explain_takes_the_admin_key_alone_also_from_loopback(router, ask):
    assert ask("POST", "/explain", "client", chat()).status == 401


@pytest.mark.parametrize("path", ["/nothing", "/docs/", "/docs/../etc", "/openapi", "/explain/x"])
def test_another_path_is_404(ask, path):
    answer = ask("GET", path, "admin")
    assert answer.status == 404
    assert schema.Error.model_validate_json(answer.body).error.code == "unknown_path"
