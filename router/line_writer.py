"""Lines for stderr, written by a thread: a reader that does not read holds up nobody."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import BinaryIO

_MAX_WAITING_BYTES = 8 * 1024 * 1024
_CLOSE_S = 2.0


class LineWriter:
    """A thread that writes; what it cannot keep up with is dropped and counted.

    Args:
        stream: where to; unbuffered.

    Attributes:
        dropped: lines that were not written, since the start.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, data: bytes, count: int) -> None:
        """Have `count` lines written; does not wait."""
        with self._lock:
            if self._waiting + len(data) > _MAX_WAITING_BYTES:
                self.dropped += count
                return
            self._waiting += len(data)
        self._queue.put((data, count))

    def close(self) -> None:
        """Write what waits, for a moment, and end."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            data, count = job
            try:
                self._stream.write(data)
                self._stream.flush()
            except (OSError, ValueError):  # a pipe without a reader, a file that is closed
                with self._lock:
                    self.dropped += count
            with self._lock:
                self._waiting -= len(data)
