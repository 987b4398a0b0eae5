"""The router's services, asked from inside its container; run there by status.sh and start-all.sh.

Without arguments: prints a table. With names: exit status 0 once all of them are healthy, else 1
and one line that says which are not.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any


def page(path: str) -> dict[str, Any]:
    """The JSON of one of the router's pages, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:8000{path}", timeout=5) as answer:
            content: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        content = json.load(error)
    return content


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table of all services."""
    line = "{:<20} {:<10} {:<5} {:>9}  {}"
    print(line.format("service", "state", "gpu", "in flight", "models, or the last error"))
    for row in rows:
        told = ", ".join(row["models"]) if row["healthy"] else row["last_error"] or ""
        gpu = "-" if row["gpu"] is None else row["gpu"]
        print(line.format(row["name"], row["state"], gpu, row["in_flight"], told))


def missing(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """What is wrong with those of the named services that are not healthy."""
    known = {row["name"]: row for row in rows}
    for name in names:
        row = known.get(name)
        if row is None:
            yield f"{name} is not known (is its container labelled and on inference-network?)"
        elif not row["healthy"]:
            yield f"{name} is {row['state']} ({row['last_error'] or 'no answer yet'})"


def main(names: Sequence[str]) -> int:
    """Ask, and tell."""
    try:
        rows = page("/services")["services"]
    except OSError as error:
        print(f"the router does not answer: {error}")
        return 1
    if not names:
        health = page("/health")
        print(
            f"router {health['router']}, {health['status']}, {health['healthy_services']} healthy"
        )
        show(rows)
        return 0
    wrong = list(missing(rows, names))
    print("; ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
