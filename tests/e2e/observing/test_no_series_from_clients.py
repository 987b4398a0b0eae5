"""Whatever clients call models, keys and paths, `/metrics` gets no series by it.

INVENTED=100000 asks for more names.
"""

from __future__ import annotations

import json
import os
import socket

from e2e.quota.organization import organization
from support.daemon import Daemon, service

INVENTED = int(os.environ.get("INVENTED", "3000"))
BATCH = 60


def request(number: int) -> bytes:
    """A third each: an unknown model, a wrong key, an unknown path."""
    key, path, model = "sk-right", "/v1/chat/completions", "m"
    kind = number % 3
    if kind == 0:
        model = f"model-{number}"
    elif kind == 1:
        key = f"sk-wrong-{number}"
    else:
        path = f"/v1/path-{number}"
    body = json.dumps({"model": model, "messages": []}).encode()
    return (
        f"POST {path} HTTP/1.1\r\nhost: r\r\nauthorization: Bearer {key}\r\n"
        f"x-request-id: r-{number}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def send(port: int, numbers: range) -> int:
    """Send them on one connection, some ahead; how many were refused."""
    answers = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        for first in range(numbers.start, numbers.stop, BATCH):
            batch = range(first, min(first + BATCH, numbers.stop))
            client.sendall(b"".join(map(request, batch)))
            got = b""
            while got.count(b"HTTP/1.1 4") < len(batch) or not got.endswith(b"}"):
                data = client.recv(1 << 20)
                assert data, "the connection was closed"
                got += data
            answers += len(batch)
    return answers


def series(router: Daemon) -> set[str]:
    lines = router.get("/metrics").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_invented_names_add_no_series(start_daemon, start_upstream, finding):
    url = start_upstream(lambda _: []).url
    router = start_daemon(
        {
            "organizations": [organization(key="sk-right")],
            "services": [service("a", url, "m")],
        },
        options=["--no-access-log"],
    )
    send(router.port, range(BATCH))
    before, memory = series(router), router.rss
    assert send(router.port, range(BATCH, INVENTED)) == INVENTED - BATCH
    added = series(router) - before
    grown = (router.rss - memory) / 1024 / 1024
    finding(
        f"{INVENTED} invented names: {len(added)} new series of {len(before)}, {grown:+.1f} MiB"
    )
    assert added == set()
