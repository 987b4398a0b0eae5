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
    def client(self) -> int:
        """What the rate of the client's address is counted under."""

    @property
    def body(self) -> bytes:
        """The whole body; empty for GET."""

    @property
    def is_secure(self) -> bool:
        """Whether the client came by https, as far as a trusted proxy tells."""

    @property
    def address(self) -> Address | None:
        """The client's address, as far as it can be believed."""

    def parameter(self, name: str) -> str | None:
        """The first value of a name in the query; None where it is not there."""

    def header(self, name: bytes) -> str | None:
        """A header, by its name in lower case; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole page.

    Attributes:
        headers: (name, value) beside the content's type and length.
    """

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def lines(self) -> bytes:
        """The headers as lines, each ended by CRLF."""
        return "".join(f"{name}: {value}\r\n" for name, value in self.headers).encode()


def json_answer(value: Any, status: int = 200) -> Answer:  # noqa: ANN401 - any JSON
    """`value` as JSON."""
    return Answer(msgspec.json.encode(value), status)
