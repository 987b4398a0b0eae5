"""Two engines and one that is down, behind one router, for the tests of every path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.daemon import Daemon, free_port, service
from support.fleet import BIG, OTHER, PATH, SQL, TWIN_A, TWIN_B
from support.upstream import ScriptedUpstream, Send
from support.wire import chat_answer


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, ScriptedUpstream]]:
    """Two engines; both answer every inference path."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ScriptedUpstream(models=models))
            for name, models in {"chat": (BIG, TWIN_A), "sql": (SQL, OTHER, TWIN_B)}.items()
        }


@pytest.fixture(scope="module")
def router(engines: dict[str, ScriptedUpstream], start_module_daemon) -> Daemon:
    """`chat` says its models in the file, `sql` is asked for them."""
    return start_module_daemon(
        {
            "services": [
                service("chat", engines["chat"].url, BIG, TWIN_A, api_key="engine-key", gpu=1),
                service("sql", engines["sql"].url, group="text2sql", max_concurrency=6),
                service("down", f"http://127.0.0.1:{free_port()}", "gone/model"),
            ],
            "routes": [{"path": "/text2sql", "model": SQL, "upstream_path": PATH}],
            "aliases": {"gpt-4o": BIG, "whisper": OTHER},
        },
        healthy=2,
    )


@pytest.fixture(autouse=True)
def plain_answers(engines):
    for engine in engines.values():
        engine.script = lambda _: [Send(chat_answer())]
        engine.forget()
