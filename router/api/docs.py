"""`GET /openapi.json` and `GET /docs`: the reference, for programs and people. Both are open."""

from __future__ import annotations

from importlib.resources import files

import msgspec

from router.api.answer import JSON, Answer, Asking
from router.api.docs_page import render
from router.api.openapi import document

_POLICY = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SECURITY = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "max-age=300"),
)


class DocsPages:
    """The reference of one release, made once.

    Args:
        version: of the release.
    """

    def __init__(self, version: str) -> None:
        whole = document(version)
        style = files(__package__).joinpath("static", "docs.css").read_bytes()
        self._json = Answer(msgspec.json.encode(whole), content_type=JSON, headers=_SECURITY)
        self._page = Answer(
            render(whole).encode(), content_type="text/html; charset=utf-8", headers=_SECURITY
        )
        self._style = Answer(style, content_type="text/css; charset=utf-8", headers=_SECURITY)

    def openapi(self, _asking: Asking) -> Answer:
        """`GET /openapi.json`."""
        return self._json

    def page(self, _asking: Asking) -> Answer:
        """`GET /docs`: the same as a page, without a script."""
        return self._page

    def style(self, _asking: Asking) -> Answer:
        """`GET /docs/docs.css`."""
        return self._style
