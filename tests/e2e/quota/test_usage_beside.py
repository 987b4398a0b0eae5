"""`router usage` beside a running daemon tells what that tells of itself."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import yaml

from e2e.quota.engine_script import compact_event, usage
from e2e.quota.organization import BEARER, CHAT, small_chat, used, windows
from support.daemon import Daemon
from support.http import Client, Response
from support.upstream import Gate, Send, Step
from support.wire import DONE, LAST_CHUNK, Request, chunk, stream_head

QUOTA = 5_000
DELTA = {"id": "1", "choices": [{"index": 0, "delta": {"content": "word "}}]}
PATIENCE_S = 10.0
"""The promise is one second; a command takes one to start, and a busy machine is given more."""


def command(router: Daemon) -> dict[tuple[str, str], dict[str, Any]]:
    """`router usage --json` by (kind, period)."""
    done = subprocess.run(
        [sys.executable, "-m", "router", "usage", "--json", "--org", "acme"],
        cwd=router.config_path.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    [organization] = json.loads(done.stdout)
    return {(row["kind"], row["period"]): row for row in organization["windows"]}


def until_the_same(router: Daemon) -> dict[str, Any]:
    """Wait until the command tells what the daemon does; the day's tokens."""
    deadline = time.monotonic() + PATIENCE_S
    while (told := command(router)) != windows(router):
        assert time.monotonic() < deadline, (told, windows(router))
    return told["tokens", "day"]


def checkpointed(router: Daemon) -> int:
    """Of the day's tokens, those that the file has as used by a request that still runs."""
    path = router.config_path.parent / "state" / "router.db"
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT sum(open) FROM usage WHERE kind = 'tokens' AND period = 'day'"
        return int(database.execute(query).fetchone()[0] or 0)


class Engine:
    """Tells 20 + 1 tokens with its first event, and 20 + 2 once its gate is opened."""

    def __init__(self) -> None:
        self.gate = Gate()

    def __call__(self, _: Request) -> Iterator[Step]:
        yield Send(stream_head())
        yield Send(chunk(compact_event({**DELTA, "usage": usage(20, 1)})))
        yield self.gate
        yield Send(chunk(compact_event({"choices": [], "usage": usage(20, 2)})))
        yield Send(chunk(DONE) + LAST_CHUNK)


def begin_stream(client: Client) -> Response:
    """Ask for a stream of at most 400 tokens, and read its first event."""
    answer = client.request("POST", CHAT, small_chat(stream=True, max_tokens=400), BEARER)
    answer.read_until(b"word")
    return answer


def test_what_a_stream_has_reserved_is_told_from_its_beginning_to_its_end(start_metered):
    """Also where it has used a little of it."""
    engine = Engine()
    router, _ = start_metered(engine, daily_tokens=QUOTA)
    with Client(router.port) as client:
        answer = begin_stream(client)
        day = until_the_same(router)
        assert day["reserved"] > 400
        assert day["remaining"] == QUOTA - day["reserved"]
        engine.gate.open()
        answer.read()
    router.until(lambda: used(router) == 22, "settled")
    day = until_the_same(router)
    assert (day["used"], day["reserved"], day["remaining"]) == (22, 0, QUOTA - 22)


def test_after_a_kill_what_was_seen_is_used_and_nothing_is_reserved(start_metered):
    engine = Engine()
    router, _ = start_metered(engine, daily_tokens=QUOTA)
    with Client(router.port) as client:
        begin_stream(client)
        router.until(lambda: checkpointed(router) == 21, "checkpoint")
        router.kill()
    assert command(router)["tokens", "day"]["reserved"] > 400
    engine.gate.open()
    with Daemon(router.config_path.parent, yaml.safe_load(router.config_path.read_text())) as again:
        day = until_the_same(again)
        assert (day["used"], day["reserved"], day["remaining"]) == (21, 0, QUOTA - 21)
