"""Looks for keys where none may be: in files, on pages, and in what engines received."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from support.upstream import ScriptedUpstream

SHOWN = 7
"""First characters of a key that a list may show."""


def disguises(key: str) -> list[bytes]:
    """A key, its secret part, the middle of it, and its base64."""
    raw = key.encode()
    return [raw, raw[SHOWN:], raw[len(raw) // 3 : 2 * len(raw) // 3], base64.b64encode(raw)]


def found_in(data: bytes, keys: Iterable[str]) -> list[str]:
    """The first characters of every key that is in `data`."""
    return [key[:SHOWN] for key in keys if any(each in data for each in disguises(key))]


def search_all(
    folder: Path, upstream: ScriptedUpstream, pages: list[bytes], keys: list[str]
) -> list[tuple[str, list[str]]]:
    """Where a key was found; empty if nowhere."""
    received = [request.raw for request in (*upstream.seen.requests, *upstream.seen.probes)]
    places = {f"page {n}": page for n, page in enumerate(pages)}
    places |= {f"request {n} at the engine": raw for n, raw in enumerate(received)}
    places |= {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert len(places) > len(pages)
    return [(place, hits) for place, data in places.items() if (hits := found_in(data, keys))]
