"""A small question of the router's own to an engine, over the connections of everything else."""

from __future__ import annotations

import asyncio

from router.proxy.answer import Disconnected, Head, UpstreamError
from router.proxy.upstream import UpstreamPool

_MAX_ANSWER_BYTES = 8 * 1024 * 1024


class _Answer:
    """Collects an answer."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done
        self.status = 0
        self.body = bytearray()
        self.error: UpstreamError | None = None

    def on_head(self, head: Head) -> None:
        self.status = head.status

    def on_data(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > _MAX_ANSWER_BYTES:
            self.on_broken(UpstreamError(f"an answer of over {_MAX_ANSWER_BYTES} bytes"))

    def on_end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def on_broken(self, error: UpstreamError) -> None:
        self.error = error
        self.on_end()


async def ask(pool: UpstreamPool, head: bytes, body: bytes) -> tuple[int, bytes]:
    """Send a request and return (status, body). Its caller bounds the time.

    Raises:
        UpstreamError: there was no whole answer.
    """
    answer = await _once(pool, head, body, reuse=True)
    if isinstance(answer.error, Disconnected) and not answer.status:
        answer = await _once(pool, head, body, reuse=False)
    if answer.error is not None:
        raise answer.error
    return answer.status, bytes(answer.body)


async def _once(pool: UpstreamPool, head: bytes, body: bytes, *, reuse: bool) -> _Answer:
    connection = pool.take_idle() if reuse else None
    if connection is None:
        connection = await pool.connect()
    done = asyncio.get_running_loop().create_future()
    answer = _Answer(done)
    try:
        connection.send(head, body, answer)
        await done
    except asyncio.CancelledError:
        if done.cancelled():  # else the answer has just ended, and the connection is the pool's
            connection.abort()
        raise
    if answer.error is not None:
        connection.abort()
    return answer
