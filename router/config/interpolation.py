"""`${NAME}` and `${NAME:-default}` in a text, as Docker Compose reads them; `$${` means `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?P<escape>\$)?\{(?P<body>[^}]*)(?P<end>\})?")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?")


def has_reference(text: str) -> bool:
    """Whether `interpolate` would change the text or refuse it."""
    return "${" in text


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Replace every reference by its value.

    A variable that is set but empty counts as unset where there is a default.

    Raises:
        ValueError: a variable that is not set, or a reference of another form.
    """
    return _REFERENCE.sub(lambda match: _value(match, environ), text)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["escape"]:
        return match[0][1:]
    body = _BODY.fullmatch(match["body"])
    if body is None or match["end"] is None:
        raise ValueError(
            "holds a reference that is not understood; write ${NAME}, ${NAME:-default}, "
            "or $${ for a plain ${"
        )
    name, default = body["name"], body["default"]
    if default is not None:
        return environ.get(name) or default
    if name not in environ:
        raise ValueError(
            f"the environment variable {name} is not set; set it, "
            f"or write ${{{name}:-default}} to go on without it"
        )
    return environ[name]
