"""Every path of the contract: who answers, what is sent on, what is refused."""

from __future__ import annotations

import json

import pytest

from support.fleet import (
    BIG,
    BOTH_WAYS,
    FORMS,
    INFERENCE,
    ONE_WAY,
    OTHER,
    PATH,
    SQL,
    TWIN_A,
    TWIN_B,
    ask,
)
from support.http import call, chat
from support.wire import chat_answer

# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*BOTH_WAYS, *BOTH_WAYS.values(), *ONE_WAY])
def test_every_json_path_reaches_the_engine_that_serves_the_model(router, engines, path):
    response = ask(router, path)
    assert (response.status, response.body) == (200, chat_answer().partition(b"\r\n\r\n")[2])
    [request] = engines["chat"].requests
    assert (request.method, request.path) == ("POST", BOTH_WAYS.get(path, path))
    assert request.body == json.dumps(chat(BIG)).encode()
    assert engines["sql"].requests == []


def test_a_query_string_is_no_hindrance(router, engines):
    """Some clients always send one, as `/v1/messages?beta=true`."""
    assert ask(router, PATH + "?beta=true&x=%20y").status == 200
    assert engines["chat"].requests[0].path.partition("?")[0] == PATH


@pytest.mark.parametrize("path", INFERENCE)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_a_wrong_method_is_405_and_says_what_is_allowed(router, engines, path, method):
    response = call(router.port, method, path)
    assert response.status == 405
    assert "POST" in response.header("allow")
    if method != "HEAD" and "messages" not in path:
        assert response.error["code"] == "method_not_allowed"
    assert not engines["chat"].requests


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/health", "/services", "/stats"])
def test_a_page_takes_no_post(router, path):
    response = call(router.port, "POST", path, {})
    assert (response.status, response.error["code"]) == (405, "method_not_allowed")
    assert "GET" in response.header("allow")


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/v1", "/v1/", "/v1/nope", "/invocations", "/v1/chat/completions/", "/sleep",
     "//v1/chat/completions", "/v1//chat/completions", "/v1/%63hat/completions/x", "/v1/../health",
     "/metrics/x", "/v1/load_lora_adapter", "/V1/CHAT/COMPLETIONS", "/reset_prefix_cache"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_not_on_the_list_is_404_and_does_not_cross(router, engines, method, path):
    response = call(router.port, method, path, chat(BIG) if method == "POST" else None)
    assert (response.status, response.error["code"]) == (404, "unknown_path")
    assert response.error["type"] == "invalid_request_error"
    assert response.header("x-request-id")
    assert not engines["chat"].requests
    assert not engines["sql"].requests


def test_a_named_route_has_its_own_model_and_path(router, engines):
    body = {"messages": [{"role": "user", "content": "List users"}], "temperature": 0}
    response = call(router.port, "POST", "/text2sql", body)
    assert (response.status, response.header("x-router-service")) == (200, "sql")
    [request] = engines["sql"].requests
    assert request.path == PATH
    assert request.json == {**body, "model": SQL}


def test_a_named_route_overrules_the_bodys_model(router, engines):
    assert call(router.port, "POST", "/text2sql", chat("whatever")).status == 200
    assert engines["sql"].requests[0].json["model"] == SQL
    assert call(router.port, "GET", "/text2sql").status == 405


# -- models ----------------------------------------------------------------------------------------


def test_an_alias_is_put_in_place_and_every_other_byte_stays(router, engines):
    body = b'{ "x" : [1.0, 1e2, "\\u00e9"],"model" :  "gpt-4o" , "messages":[],\n"top_k": 5 }'
    assert call(router.port, "POST", PATH, body).status == 200
    expected = body.replace(b'"gpt-4o"', f'"{BIG}"'.encode())
    assert engines["chat"].requests[0].body == expected


def test_the_original_body_crosses_byte_for_byte(router, engines):
    body = (
        f'{{"model":"{BIG}","top_p":1.0,"a":{{"model":"x"}},"u":"\\ud83d\\ude00 é"}}  \n'.encode()
    )
    assert call(router.port, "POST", PATH, body).status == 200
    assert engines["chat"].requests[0].body == body


@pytest.mark.parametrize("written", ["8.0", "1e1", "null"])
def test_a_limit_that_the_engine_understands_crosses_as_it_is_written(router, engines, written):
    """Some languages have no integers; vLLM takes 8.0 for 8."""
    body = f'{{"model":"{BIG}","messages":[],"max_tokens":{written}}}'.encode()
    assert call(router.port, "POST", PATH, body).status == 200
    assert engines["chat"].requests[0].body == body


def test_a_short_name_stands_for_the_one_model_that_ends_so(router, engines):
    assert ask(router, PATH, "Llama-3-8B").status == 200
    assert engines["sql"].requests[0].json["model"] == OTHER


def test_a_short_name_of_several_models_is_409_and_lists_them(router, engines):
    response = ask(router, PATH, "twin")
    assert (response.status, response.error["code"]) == (409, "model_ambiguous")
    assert TWIN_A in response.error["message"]
    assert TWIN_B in response.error["message"]


@pytest.mark.parametrize("model", ["nope", "Qwen/nope", "Instruct", "Qwen", "GPT-4O", BIG + "/"])
def test_an_unknown_model_is_404(router, model):
    response = ask(router, PATH, model)
    assert (response.status, response.error["code"]) == (404, "model_not_found")
    assert response.error["param"] == "model"


def test_a_model_that_is_configured_but_down_is_503(router):
    response = ask(router, PATH, "gone/model")
    assert response.status == 503
    assert response.error["type"] == "api_error"
    assert response.error["code"] in {"model_loading", "no_healthy_backend"}
    assert int(response.header("retry-after")) >= 1


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_the_models_are_the_union_over_healthy_services_and_aliases(router, path):
    content = router.get(path).json
    assert content["object"] == "list"
    rows = content["data"]
    assert sorted(row["id"] for row in rows) == sorted(
        [BIG, TWIN_A, SQL, OTHER, TWIN_B, "gpt-4o", "whisper"]
    )
    for row in rows:
        assert row["object"] == "model"
        assert row["owned_by"] == "vllm"
        assert isinstance(row["created"], int)


@pytest.mark.parametrize("model", [BIG, BIG.replace("/", "%2F"), "gpt-4o", OTHER])
def test_one_model_is_told_also_when_its_name_has_slashes(router, model):
    response = router.get(f"/v1/models/{model}")
    assert response.status == 200
    assert response.json["object"] == "model"
    assert response.json["id"] == model.replace("%2F", "/")


@pytest.mark.parametrize("model", ["nope", "a/b/c", "gone/model"])
def test_one_model_that_nothing_healthy_serves_is_an_error(router, model):
    response = router.get(f"/v1/models/{model}")
    assert response.status in {404, 503}
    assert response.error["code"] in {"model_not_found", "no_healthy_backend", "model_loading"}


# -- audio -----------------------------------------------------------------------------------------

AUDIO = bytes(range(256)) * 40 + b"\r\n--bound" + b"\r\n"
FORM = (
    b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n" + AUDIO + b"\r\n--boundary\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    b'--boundary\r\nContent-Disposition: form-data; name="language"\r\n\r\nde\r\n--boundary--\r\n'
)
FORM_TYPE = ("content-type", "multipart/form-data; boundary=boundary")


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("asked", "sent"), [(OTHER, OTHER), ("whisper", OTHER), ("Llama-3-8B", OTHER)]
)
def test_a_form_crosses_byte_for_byte_but_for_its_model(router, engines, path, asked, sent):
    body = FORM.replace(b"%s", asked.encode())
    response = call(router.port, "POST", path, body, (FORM_TYPE,))
    assert response.status == 200
    [request] = engines["sql"].requests
    assert request.path == path
    assert request.body == FORM.replace(b"%s", sent.encode())
    assert request.header("content-type") == FORM_TYPE[1]
