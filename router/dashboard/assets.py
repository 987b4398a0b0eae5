"""The page's own files, read once. They hold no data, so everybody may have them."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from router.api.answer import Answer, Asking
from router.errors import UnknownPath

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = "index.html"
_PREFIX = "/dashboard/"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""Headers of every file: nothing from elsewhere, nothing inline, no frame around it."""


class Assets:
    """The files of `static/`, with the headers they are sent with."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Answer, str]] = {}
        for file in files(__package__).joinpath("static").iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if suffix in _TYPES:
                self._files[file.name] = _file(file.read_bytes(), _TYPES[suffix])

    def page(self, asking: Asking) -> Answer:
        """`GET /dashboard`: the page."""
        return self._fresh(_PAGE, asking)

    def asset(self, asking: Asking) -> Answer:
        """`GET /dashboard/{file}`.

        Raises:
            UnknownPath: there is no such file.
        """
        name = asking.path.removeprefix(_PREFIX)
        if name not in self._files:
            raise UnknownPath(f"There is no path {asking.path[:200]!r} here.")
        return self._fresh(name, asking)

    def _fresh(self, name: str, asking: Asking) -> Answer:
        """The file, or that the browser's copy is the file."""
        answer, tag = self._files[name]
        if tag in (asking.header(b"if-none-match") or ""):
            return Answer(b"", 304, answer.content_type, answer.headers)
        return answer


def _file(content: bytes, content_type: str) -> tuple[Answer, str]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = (("cache-control", "no-cache"), ("etag", tag), *SECURITY)
    return Answer(content, content_type=content_type, headers=headers), tag
