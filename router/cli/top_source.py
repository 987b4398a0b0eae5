"""What `router top` shows, asked of a running router: its `/services` and `/stats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from router.fleet.prober import fault_of

_MAX_BYTES = 16 * 1024 * 1024


class Unanswered(Exception):
    """There is no picture to be had; the message says why, and what would be right."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The router at one moment.

    Attributes:
        services: a row of `/services` and the row of `/stats` of the same place, together.
        organizations: rows of `/stats`; None without the admin key.
        healthy: services that may be given requests.
        uptime_s: since the router was started.
    """

    services: Sequence[Mapping[str, Any]]
    organizations: Sequence[Mapping[str, Any]] | None
    healthy: int
    uptime_s: float


async def fetch(session: aiohttp.ClientSession, url: str) -> Picture:
    """Ask the router at `url`, a base URL without a trailing slash.

    Raises:
        Unanswered: nothing answers, it asks for a key, or it is no router.
    """
    try:
        services = await _page(session, url + "/services")
        stats = await _page(session, url + "/stats")
        return picture(services, stats)
    except TimeoutError:
        raise Unanswered(f"{url} does not answer in time.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(
            f"No router answers at {url} ({fault_of(error)}). Give its address: --url http://HOST:PORT."
        ) from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Unanswered(
            f"What answers at {url} is no router, or of another release. Give a router's base "
            "URL, without a path: --url http://HOST:PORT."
        ) from None


def picture(services: Mapping[str, Any], stats: Mapping[str, Any]) -> Picture:
    """Join the two pages; of two services with one name, one drains: the first row counts."""
    numbers = {row["name"]: row for row in reversed(stats["services"])}
    rows = [{**numbers.get(row["name"], {}), **row} for row in services["services"]]
    return Picture(
        rows, stats.get("organizations"), int(stats["healthy_services"]), float(stats["uptime_s"])
    )


async def _page(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status in {401, 403}:
            raise Unanswered(
                f"{url} asks for the admin key: set ROUTER_ADMIN_KEY, or give --key-file. "
                "If a key was sent, it is not the router's."
            )
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _MAX_BYTES:
                raise ValueError("an answer without end")
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        page = msgspec.json.decode(body)
        if not isinstance(page, dict):
            raise TypeError("no object")
        return page
