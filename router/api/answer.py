"""What pages are given and what they give: no HTTP server is seen from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from router.limits.address import Address

JSON = "application/json"


class Asking(Protocol):
    """A request for a page.

    Attributes:
        path: of the target, without a query, as it was sent.
    """

    path: str

    @property
    def address(self) -> Address | None:
        """The client's address, as far as it can be believed."""

    def header(self, name: bytes) -> str | None:
        """A header, by its name in lower case; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole page."""

    body: bytes
    status: int = 200
    content_type: str = JSON


def json_answer(value: Any, status: int = 200) -> Answer:  # noqa: ANN401 - any JSON
    """`value` as JSON."""
    return Answer(msgspec.json.encode(value), status)
