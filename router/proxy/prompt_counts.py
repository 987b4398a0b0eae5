"""The true size of a prompt: asked of an engine, for what its bytes alone would refuse."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from router.fleet.fleet import Fleet
from router.fleet.service import Service
from router.log import get_logger
from router.openai.paths import BY_UPSTREAM
from router.proxy.admit import Wanted
from router.proxy.answer import UpstreamError
from router.proxy.ask import ask
from router.proxy.upstream import Upstreams, request_head

_log = get_logger("router.proxy")
_TOKENIZE = BY_UPSTREAM["/tokenize"]
_TIMEOUT_S = 5.0
_TRIES = 2
_AT_ONCE = 16
_JSON_LINE = b"content-type: application/json\r\n"


class _Count(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


_decode_count = msgspec.json.Decoder(_Count).decode


class PromptCounts:
    """Asks engines, few questions at once.

    A question takes no slot: it generates nothing, and what is full could not tell whether a
    request may wait for it.

    Args:
        fleet, upstreams: whom to ask, and over which connections.
    """

    def __init__(self, fleet: Fleet, upstreams: Upstreams) -> None:
        self._fleet = fleet
        self._upstreams = upstreams
        self._running = asyncio.Semaphore(_AT_ONCE)

    async def count(self, wanted: Wanted) -> int | None:
        """Tokens of the prompt; None where no engine tells.

        Raises:
            NoHealthyBackend, ModelLoading: there is no engine to ask, nor to answer afterwards.
        """
        body = wanted.to_be_counted()
        for service in self._fleet.able(wanted.model)[:_TRIES]:
            if service.usable:  # it may have gone while another was asked
                count = await self._count_at(service, body)
                if count is not None:
                    return count
        return None

    async def _count_at(self, service: Service, body: bytes) -> int | None:
        """The same, from this one."""
        pool = self._upstreams.pool(service.spec.url)
        start = pool.start_of(_TOKENIZE.upstream, service.spec.api_key)
        head = request_head(start, _JSON_LINE, len(body))
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._running:
                status, answer = await ask(pool, head, body)
            return _decode_count(answer).count if status == 200 else None
        except (UpstreamError, TimeoutError, msgspec.MsgspecError, RecursionError) as error:
            _log.warning("tokenize_failed", service=service.name, error=str(error))
            return None
