"""The event loop: uvloop where it is available (14-20 % less CPU a request), else asyncio's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_LOOKUP_THREADS = "64"
"""libuv looks names up in half of its threads, of which it has 4 unless it is told otherwise. A
lookup that gets no answer keeps its thread for many seconds, also when nobody waits for it any
more: two names that do not resolve would take the connections to all other engines with them."""

_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    import uvloop
except ImportError:  # not on every platform, and asyncio's own loop serves as well
    pass
else:
    _factory = uvloop.new_event_loop


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What `asyncio.Runner` makes its loop with.

    The size of libuv's pool is read from the environment at the first lookup, so it is set here,
    before there is a loop; what an operator has set stays.
    """
    os.environ.setdefault("UV_THREADPOOL_SIZE", _LOOKUP_THREADS)
    return _factory
