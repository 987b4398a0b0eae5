"""Who is let in, on every path of the contract, and that nobody learns a key."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.keys.house import ADMIN_KEY, ALPHA, BETA, GAMMA, House
from e2e.quota.organization import log_lines
from support.fleet import FORMS, INFERENCE
from support.http import Client, Response, call, chat

POSTS = (*INFERENCE, "/text2sql")
PAGES = ("/v1/models", "/models", f"/v1/models/{ALPHA}", "/v1/usage")
ANTHROPIC = {"/v1/messages", "/messages", "/v1/messages/count_tokens"}
MULTIPART = ("content-type", "multipart/form-data; boundary=B")
FORM = b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n--B--\r\n'


def bearer(key: str) -> tuple[str, str]:
    return "authorization", f"Bearer {key}"


def knock(house: House, path: str, model: str, *headers: tuple[str, str]) -> Response:
    """A well-formed request for a path, with these headers."""
    if path in PAGES or path.startswith("/v1/models"):
        return call(house.router.port, "GET", path, None, headers)
    if path in FORMS:
        body: Any = FORM % model.encode()
        return call(house.router.port, "POST", path, body, (MULTIPART, *headers))
    return call(house.router.port, "POST", path, chat(model), headers)


def refused(answered: Response, path: str, status: int) -> str:
    """The code of a refusal, its form checked."""
    assert answered.status == status, answered.body
    content = answered.json
    if path in ANTHROPIC:
        kinds = {401: "authentication_error", 403: "permission_error"}
        assert (content["type"], content["error"]["type"]) == ("error", kinds[status])
        return str(content["error"]["code"])
    assert answered.error["type"] == {401: "authentication_error", 403: "permission_error"}[status]
    return str(answered.error["code"])


@pytest.mark.parametrize("path", [*POSTS, *PAGES])
def test_without_a_key_that_counts_every_path_is_401_and_no_engine_hears_of_it(house, path):
    bad: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        ("missing_api_key", ()),
        ("missing_api_key", (("authorization", "Basic dXNlcjpwYXNz"),)),
        ("missing_api_key", (bearer(""),)),
        ("invalid_api_key", (bearer("sk-nobody"),)),
        ("invalid_api_key", (bearer("s\xfck"),)),
        ("invalid_api_key", (bearer("x" * 4000),)),
        ("invalid_api_key", (bearer(house.keys["old"]),)),
        ("invalid_api_key", (bearer(house.keys["revoked"]),)),
        ("invalid_api_key", (bearer(house.keys["wide"] + "x"),)),
        ("invalid_api_key", (bearer(house.keys["wide"].upper()),)),
        ("invalid_api_key", (("x-api-key", house.keys["revoked"]),)),
        ("invalid_api_key", (bearer("sk-nobody"), ("x-api-key", house.keys["wide"]))),
        ("invalid_api_key", (bearer(ADMIN_KEY),)),
    ]
    before = len(house.upstream.requests)
    for code, headers in bad:
        answered = knock(house, path, ALPHA, *headers)
        assert refused(answered, path, 401) == code, headers
        assert answered.header("www-authenticate") == "Bearer"
        assert answered.header("x-request-id")
    assert len(house.upstream.requests) == before


@pytest.mark.parametrize("path", [*POSTS, *PAGES])
def test_a_key_counts_as_bearer_and_as_x_api_key(house, path):
    for header in (
        bearer(house.keys["wide"]),
        ("authorization", f"bearer {house.keys['wide']}"),
        ("x-api-key", house.keys["wide"]),
    ):
        assert knock(house, path, ALPHA, header).status == 200


@pytest.mark.parametrize("path", POSTS)
def test_a_model_out_of_scope_is_403_by_whatever_name_it_is_called(house, path):
    before = len(house.upstream.requests)
    for model in (GAMMA, "gpt", "gamma"):
        answered = knock(house, path, model, bearer(house.keys["team"]))
        assert refused(answered, path, 403) == "model_not_allowed"
    assert len(house.upstream.requests) == before
    if path != "/text2sql":
        for model in (ALPHA, BETA, "small", "beta"):
            assert knock(house, path, model, bearer(house.keys["team"])).status == 200


def test_the_model_list_is_what_the_key_may_use(house):
    def listed(key: str) -> set[str]:
        answered = knock(house, "/v1/models", "", bearer(house.keys[key]))
        return {row["id"] for row in answered.json["data"]}

    assert listed("wide") == {ALPHA, BETA, GAMMA, "gpt", "small"}
    assert listed("team") == {ALPHA, BETA, "small"}
    assert listed("stored") == {BETA, GAMMA, "gpt"}
    one = knock(house, f"/v1/models/{GAMMA}", "", bearer(house.keys["team"]))
    assert refused(one, "/v1/models", 403) == "model_not_allowed"


def test_usage_is_that_of_the_keys_own_organization(house):
    def organization(key: str) -> str:
        return str(knock(house, "/v1/usage", "", bearer(house.keys[key])).json["organization"])

    assert (organization("wide"), organization("team"), organization("stored")) == (
        "acme",
        "acme",
        "beta",
    )


def test_organizations_are_shown_to_the_admin_key_alone(house):
    port = house.router.port
    assert "organizations" not in call(port, "GET", "/stats").json
    assert "organizations" not in knock_stats(port, house.keys["wide"])
    rows = knock_stats(port, ADMIN_KEY)["organizations"]
    assert {row["id"] for row in rows} == {"acme", "beta"}


def knock_stats(port: int, key: str) -> dict[str, Any]:
    answered = call(port, "GET", "/stats", None, (bearer(key),))
    assert answered.status == 200
    return dict(answered.json)


def test_a_key_with_bytes_that_are_no_text_is_refused_like_any_other(house):
    for path in ("/v1/models", "/stats"):
        head = f"GET {path} HTTP/1.1\r\nhost: r\r\nauthorization: Bearer ".encode()
        with Client(house.router.port) as client:
            client.send(head + b"\xff\xfe\r\n\r\n")
            answered = client.response()
            assert answered is not None
            assert answered.read().status == (401 if path == "/v1/models" else 200)


def test_the_clients_key_is_taken_out_and_the_engines_own_is_put_in(house):
    house.upstream.forget()
    key = house.keys["wide"]
    hidden = (("x-api-key", key), ("cookie", f"k={key}"), ("proxy-authorization", f"Basic {key}"))
    assert knock(house, "/v1/chat/completions", ALPHA, bearer(key), *hidden).status == 200
    [request] = house.upstream.requests
    assert request.header("authorization") == "Bearer engine-key"
    assert key.encode() not in request.raw


def test_each_refused_key_has_an_audit_line_that_does_not_quote_it(house):
    knock(house, "/v1/models", "", bearer(house.keys["old"]))
    lines = log_lines(house.router, "key_refused")
    assert lines
    assert {line["logger"] for line in lines} == {"router.audit"}
    assert {line["reason"] for line in lines} <= {"unknown", "expired", "revoked"}
    assert len(lines) <= 90, "refusals are not rate-limited in the log"
