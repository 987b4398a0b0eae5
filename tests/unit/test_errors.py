"""The router's own errors: their status, type, code and headers are promises to clients."""

from __future__ import annotations

import pytest

from router import errors

CONTRACT = {
    errors.InvalidJson: (400, "invalid_request_error", "invalid_json"),
    errors.MissingModel: (400, "invalid_request_error", "missing_model"),
    errors.InvalidModel: (400, "invalid_request_error", "invalid_model"),
    errors.MissingApiKey: (401, "authentication_error", "missing_api_key"),
    errors.InvalidApiKey: (401, "authentication_error", "invalid_api_key"),
    errors.ModelNotAllowed: (403, "permission_error", "model_not_allowed"),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.UnknownPath: (404, "invalid_request_error", "unknown_path"),
    errors.ModelAmbiguous: (409, "invalid_request_error", "model_ambiguous"),
    errors.RequestTooLarge: (413, "invalid_request_error", "request_too_large"),
    errors.RateLimitExceeded: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.InsufficientQuota: (429, "insufficient_quota", "insufficient_quota"),
    errors.BadGateway: (502, "api_error", "bad_gateway"),
    errors.NoHealthyBackend: (503, "api_error", "no_healthy_backend"),
    errors.ModelLoading: (503, "api_error", "model_loading"),
    errors.Overloaded: (503, "api_error", "overloaded"),
    errors.Draining: (503, "api_error", "draining"),
    errors.GatewayTimeout: (504, "api_error", "gateway_timeout"),
}
IN_A_STREAM = {
    errors.UpstreamDisconnected: "upstream_disconnected",
    errors.UpstreamTimeout: "upstream_timeout",
    errors.ServerShuttingDown: "server_shutting_down",
}


@pytest.mark.parametrize("kind", CONTRACT, ids=lambda kind: kind.__name__)
def test_status_type_and_code_are_those_of_the_contract(kind):
    error = kind("Why.")
    assert (error.status, error.type, error.code) == CONTRACT[kind]


@pytest.mark.parametrize("kind", IN_A_STREAM, ids=lambda kind: kind.__name__)
def test_codes_inside_a_stream_are_those_of_the_contract(kind):
    assert (kind.code, kind.type) == (IN_A_STREAM[kind], "api_error")


def test_a_wrong_method_is_405_and_says_which_is_right():
    error = errors.MethodNotAllowed("No.", allow="POST")
    assert (error.status, error.code) == (405, "method_not_allowed")
    assert error.headers() == [("Allow", "POST")]


@pytest.mark.parametrize("kind", [errors.MissingApiKey, errors.InvalidApiKey])
def test_every_401_says_how_to_authenticate(kind):
    assert kind("No.").headers() == [("WWW-Authenticate", "Bearer")]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (86399.5, "86400")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_never_zero(seconds, told):
    error = errors.Overloaded("Full.", retry_after_s=seconds)
    assert error.headers() == [("Retry-After", told)]


def test_without_a_time_there_is_no_retry_after():
    assert errors.Overloaded("Full.").headers() == []


def test_an_error_reads_as_its_message():
    assert str(errors.BadGateway("Why.")) == "Why."


def test_codes_are_not_shared_by_mistake():
    codes = [kind.code for kind in (*CONTRACT, *IN_A_STREAM)]
    assert len(codes) == len(set(codes))
