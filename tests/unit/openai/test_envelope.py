"""The router's own errors in the form of each dialect."""

from __future__ import annotations

import json

import pytest

from router import errors
from router.openai.envelope import error_body, error_event, error_object
from router.openai.paths import Dialect


def every_error() -> list[errors.RouterError]:
    """One of each class; `MethodNotAllowed` alone wants more than a message."""
    found, queue = [], [errors.RouterError]
    while queue:
        kind = queue.pop()
        queue += kind.__subclasses__()
        extra = {"allow": "POST"} if kind is errors.MethodNotAllowed else {}
        found.append(kind("Something is wrong.", **extra))
    return found


@pytest.mark.parametrize("error", every_error(), ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.RESPONSES])
def test_an_answer_in_openais_form_has_exactly_the_four_fields(error, dialect):
    assert json.loads(error_body(error, dialect)) == {
        "error": {
            "message": "Something is wrong.",
            "type": error.type,
            "param": None,
            "code": error.code,
        }
    }


@pytest.mark.parametrize("error", every_error(), ids=lambda e: type(e).__name__)
def test_an_answer_in_anthropics_form_says_error_and_a_type_of_anthropics(error):
    content = json.loads(error_body(error, Dialect.ANTHROPIC))
    assert content["type"] == "error"
    assert content["error"]["message"] == "Something is wrong."
    assert content["error"]["code"] == error.code
    assert content["error"]["type"] in {
        "invalid_request_error", "authentication_error", "permission_error", "not_found_error",
        "request_too_large", "rate_limit_error", "api_error", "overloaded_error", "timeout_error",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.MissingApiKey("x"), "authentication_error"),
        (errors.ModelNotAllowed("x"), "permission_error"),
        (errors.ModelNotFound("x"), "not_found_error"),
        (errors.RequestTooLarge("x"), "request_too_large"),
        (errors.RateLimitExceeded("x"), "rate_limit_error"),
        (errors.InsufficientQuota("x"), "rate_limit_error"),
        (errors.Overloaded("x"), "overloaded_error"),
        (errors.GatewayTimeout("x"), "timeout_error"),
        (errors.BadGateway("x"), "api_error"),
    ],
)
def test_anthropics_type_follows_the_status(error, kind):
    assert error_object(error, Dialect.ANTHROPIC)["error"]["type"] == kind


def test_the_offending_field_is_named():
    error = errors.InvalidModel("No.", param="model")
    assert error_object(error, Dialect.OPENAI)["error"]["param"] == "model"


def test_the_default_form_is_openais():
    assert error_body(errors.BadGateway("x")) == error_body(errors.BadGateway("x"), Dialect.OPENAI)


BROKEN = errors.UpstreamDisconnected('A "quoted"\nmessage.')


@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_event_is_one_event_of_one_data_line(dialect):
    lines = error_event(BROKEN, dialect, 3).strip(b"\n").split(b"\n")
    assert [line.split(b":")[0] for line in lines][-1:] == [b"data"]
    assert len(lines) == (1 if dialect is Dialect.OPENAI else 2)


@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_event_stands_apart_from_an_event_that_was_cut(dialect):
    event = error_event(BROKEN, dialect, 3)
    assert event.startswith(b"\n\n")
    assert event.endswith(b"\n\n")


def test_chat_and_completions_get_the_error_as_bare_data():
    data = error_event(BROKEN, Dialect.OPENAI, 3).strip(b"\n").removeprefix(b"data: ")
    assert json.loads(data)["error"]["code"] == "upstream_disconnected"


def test_messages_get_an_error_event_in_their_own_form():
    name, data = error_event(BROKEN, Dialect.ANTHROPIC, 3).strip(b"\n").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["type"] == "error"


def test_responses_get_an_error_event_in_their_own_form():
    name, data = error_event(BROKEN, Dialect.RESPONSES, 3).strip(b"\n").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "upstream_disconnected",
        "message": BROKEN.message,
        "param": None,
        "sequence_number": 3,
    }


@pytest.mark.parametrize("dialect", Dialect)
def test_no_error_event_says_that_the_answer_is_whole(dialect):
    event = error_event(BROKEN, dialect, 3)
    assert b"[DONE]" not in event
    assert b"finish_reason" not in event
