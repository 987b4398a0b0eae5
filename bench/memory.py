"""How much a proxy grows while 100 MB are streamed to a client that does not read.

    python -m bench.memory
    python -m bench.memory --targets nginx,router --pause 10

The backend sends as fast as its connection takes it. The client reads the first bytes, pauses, then
reads the rest and counts it. Exit status 1: the router grew by 8 MiB or more, or bytes are missing.
"""

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httptools

from bench import wire
from bench.backend import FLOOD_EVENT
from bench.client import LoadError
from bench.cpu import resident_bytes
from bench.targets import StartError, Target, Testbed, end_on_sigterm

MIB = 1 << 20
MARK_MIB = 8
SAMPLE_S = 0.02
READ_BYTES = 1 << 18


class Answer:
    """Counts an answer's body as it is read; the parser calls the `on_` methods."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.body_bytes = 0
        self.complete = False

    def read(self, connection: socket.socket) -> None:
        data = connection.recv(READ_BYTES)
        if not data:
            raise LoadError(f"the connection ended after {self.body_bytes} bytes of the body")
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(frozen=True)
class Growth:
    """Resident memory in bytes: before, and the highest while paused and while reading."""

    before: int
    paused: int
    reading: int

    @property
    def mib(self) -> float:
        return (max(self.paused, self.reading) - self.before) / MIB


def connect(port: int, size: int) -> socket.socket:
    """Ask for an answer of `size` bytes."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    request = wire.chat_request(f"127.0.0.1:{port}", stream=True, max_tokens=1, flood_bytes=size)
    connection.sendall(request)
    return connection


def read_all(connection: socket.socket, answer: Answer, pids: Sequence[int]) -> int:
    """Read the rest; return the highest memory meanwhile."""
    peak = resident_bytes(pids)
    while not answer.complete:
        answer.read(connection)
        peak = max(peak, resident_bytes(pids))
    return peak


def pause(seconds: float, pids: Sequence[int]) -> int:
    """Read nothing; return the highest memory meanwhile."""
    peak, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        peak = max(peak, resident_bytes(pids))
        time.sleep(SAMPLE_S)
    return peak


def measure(target: Target, size: int, pause_s: float) -> Growth:
    """One answer of `size` bytes to a slow client, after a small one that warms the target up."""
    port = target.ports[0]
    with connect(port, MIB) as connection:
        read_all(connection, Answer(), target.pids)
    before = resident_bytes(target.pids)
    answer = Answer()
    with connect(port, size) as connection:
        answer.read(connection)
        paused = pause(pause_s, target.pids)
        reading = read_all(connection, answer, target.pids)
    expected = size // len(FLOOD_EVENT) * len(FLOOD_EVENT) + len(wire.STREAM_END)
    if answer.body_bytes != expected:
        raise LoadError(f"{answer.body_bytes} bytes arrived, not {expected}")
    return Growth(before, paused, reading)


def report(target: Target, growth: Growth, size: int) -> None:
    mib = {name: (value - growth.before) / MIB for name, value in vars(growth).items()}
    print(
        f"{target.name}: {size / 1e6:.0f} MB, all arrived; resident {growth.before / MIB:.1f} MiB "
        f"before; growth {mib['paused']:.2f} MiB while the client paused, "
        f"{mib['reading']:.2f} MiB while it read the rest"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", default="nginx,router", help="of these, with commas")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--pause", type=float, default=5, help="seconds without reading")
    args = parser.parse_args()
    end_on_sigterm()
    size, status = args.megabytes * 1_000_000, 0
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Testbed(Path(folder)) as bed:
        bed.start_backends(1)
        for name in args.targets.split(","):
            try:
                target = bed.start(name)
                growth = measure(target, size, args.pause)
            except (StartError, LoadError) as error:
                print(f"*** FAILED: {name} *** {error}", file=sys.stderr)
                status = 1
                continue
            report(target, growth, size)
            if name == "router" and growth.mib >= MARK_MIB:
                print(f"MISSED: the mark is less than {MARK_MIB} MiB", file=sys.stderr)
                status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
