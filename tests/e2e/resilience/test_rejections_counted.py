"""Every refusal is on `/metrics`, also where the head alone was reason enough."""

from __future__ import annotations

import pytest

from support.http import call


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code"),
    [
        ("GET", "/nowhere", None, {}, "unknown_path"),
        ("GET", "/v1/chat/completions", None, {}, "method_not_allowed"),
        ("POST", "/v1/chat/completions", b"{", {}, "invalid_json"),
        ("POST", "/v1/chat/completions", b'{"model": "none"}', {}, "model_not_found"),
        ("GET", "/v1/models/none", None, {}, "model_not_found"),
    ],
)
def test_a_refusal_is_counted_by_its_code(
    start_daemon, start_upstream, method, path, body, headers, code
):
    url = start_upstream(lambda _: []).url
    router = start_daemon({"services": [{"name": "a", "url": url, "models": ["m"]}]})
    answer = call(router.port, method, path, body=body, headers=headers)
    assert answer.status >= 400
    assert router.metric("router_rejections_total", code=code) == 1
