"""A load generator that speaks HTTP/1.1 over bare sockets and checks every byte of every answer.

    python -m bench.load unary  --port 8000 --seconds 10
    python -m bench.load stream --port 8000 --seconds 10

Any answer that is not exactly what the fake backend sends makes the run fail.
"""

import argparse
import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import uvloop

from bench import wire
from bench.backend import PERIOD_S
from bench.client import Client, LoadError, Outcome
from bench.cpu import Meter, Usage

GRACE_S = 30.0
SETTLE_S = 0.5
STREAM_STAGGER_S = 0.002


@dataclass(frozen=True)
class Samples:
    """What one run measured within its window; times in nanoseconds.

    `units` are requests or events; `delays` the times of answers, or of events from the backend's
    write to the client's read; `first` the times to a stream's first event; `late` the requests
    that found no free connection when they were due.
    """

    units: int
    usage: Usage
    delays: list[int]
    first: list[int] = field(default_factory=list)
    late: int = 0


class UnaryClient(Client):
    """Sends one request after the other, as its owner says."""

    def __init__(self, outcome: Outcome, done: "Callable[[UnaryClient, int], None]") -> None:
        super().__init__(outcome)
        self._done = done
        self._due = 0
        self._body = b""

    def send(self, request: bytes, due: int) -> None:
        self._due = due
        self._body = b""
        self.begin(request)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        right = status == 200 and self._body == EXPECTED_ANSWER
        self.finish(None if right else f"status {status}, {self._body[:300]!r}")
        if right:
            self._done(self, self._now - self._due)


EXPECTED_ANSWER = wire.unary_answer()


class UnaryLoad:
    """Requests at a fixed rate, or with rate 0 each connection's next one upon its answer."""

    def __init__(self, rate: float, outcome: Outcome, request: bytes) -> None:
        self._rate = rate
        self._outcome = outcome
        self._request = request
        self._free: deque[UnaryClient] = deque()
        self._waiting: deque[int] = deque()
        self._running = True
        self.delays: list[int] = []
        self.late = 0

    async def connect(self, ports: Sequence[int], connections: int) -> None:
        loop = asyncio.get_running_loop()
        for port, _ in zip(cycle(ports), range(connections), strict=False):
            _, client = await loop.create_connection(self._client, "127.0.0.1", port)
            self._free.append(client)

    def _client(self) -> UnaryClient:
        return UnaryClient(self._outcome, self._answered)

    def _answered(self, client: UnaryClient, took: int) -> None:
        self.delays.append(took)
        if self._waiting:
            client.send(self._request, self._waiting.popleft())
        elif self._rate or not self._running:
            self._free.append(client)
        else:
            client.send(self._request, time.monotonic_ns())

    async def drive(self, seconds: float) -> None:
        """Send for so long; a request that finds no free connection waits for one."""
        loop = asyncio.get_running_loop()
        begin, sent = loop.time(), 0
        self._running = True
        while not self._rate and self._free:
            self._free.popleft().send(self._request, time.monotonic_ns())
        while (passed := loop.time() - begin) < seconds:
            due = int(passed * self._rate)
            for _ in range(due - sent):
                self._send_or_wait()
            sent = due
            await asyncio.sleep(0.001)
        self._running = False

    def _send_or_wait(self) -> None:
        now = time.monotonic_ns()
        if self._free:
            self._free.popleft().send(self._request, now)
        else:
            self.late += 1
            self._waiting.append(now)

    def reset(self) -> None:
        self.delays.clear()
        self.late = 0

    def stop(self) -> None:
        self._running = False
        self._waiting.clear()

    def close(self) -> None:
        for client in self._free:
            client.transport.abort()


async def run_unary(
    ports: Sequence[int], meter: Meter, *, seconds: float, rate: float, connections: int
) -> Samples:
    """Requests of 1 KiB, answers of 1 KiB; the first half second does not count."""
    outcome = Outcome()
    load = UnaryLoad(rate, outcome, wire.chat_request(f"127.0.0.1:{ports[0]}"))
    await load.connect(ports, connections)
    await load.drive(SETTLE_S)
    load.reset()
    meter.start()
    await load.drive(seconds)
    usage = meter.stop()
    delays, late = load.delays.copy(), load.late
    load.stop()
    await outcome.settle(GRACE_S)
    load.close()
    return Samples(len(delays), usage, delays, late=late)


class StreamClient(Client):
    """One streamed answer: every event in its order, the end, nothing else."""

    def __init__(self, outcome: Outcome, events: int, delays: list[int], first: list[int]) -> None:
        super().__init__(outcome)
        self._expected = events
        self._delays = delays
        self._first = first
        self._sent_at = 0
        self._events = 0
        self._last_stamp = 0
        self._rest = b""
        self._end = b""

    def send(self, request: bytes) -> None:
        self._sent_at = time.monotonic_ns()
        self.begin(request)

    def on_body(self, body: bytes) -> None:
        *events, self._rest = (self._rest + body).split(b"\n\n")
        for event in events:
            stamp = wire.event_stamp(event)
            if stamp is None or self._end:
                self._end += event + b"\n\n"
            elif stamp <= self._last_stamp:
                self._fail("an event came twice or out of its order")
            else:
                self._take(stamp)

    def _take(self, stamp: int) -> None:
        if not self._events:
            self._first.append(self._now - self._sent_at)
        self._events += 1
        self._last_stamp = stamp
        self._delays.append(self._now - stamp)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self.finish(f"status {status}, {self._end + self._rest!r}")
        elif self._events != self._expected:
            self.finish(f"{self._events} events of {self._expected}")
        elif self._end != wire.STREAM_END or self._rest:
            self.finish(f"a wrong end: {self._end + self._rest!r}")
        else:
            self.finish(None)


async def run_streams(
    ports: Sequence[int], meter: Meter, *, seconds: float, streams: int
) -> Samples:
    """All streams are started one by one, then measured together, then awaited to their end."""
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    delays: list[int] = []
    first: list[int] = []
    expected_s = streams * STREAM_STAGGER_S * 2 + SETTLE_S + seconds
    events = int(expected_s / PERIOD_S)
    request = wire.chat_request(f"127.0.0.1:{ports[0]}", stream=True, max_tokens=events)
    clients: list[StreamClient] = []
    for port, _ in zip(cycle(ports), range(streams), strict=False):
        _, client = await loop.create_connection(
            lambda: StreamClient(outcome, events, delays, first), "127.0.0.1", port
        )
        clients.append(client)
    for client in clients:
        client.send(request)
        await asyncio.sleep(STREAM_STAGGER_S)
    await asyncio.sleep(SETTLE_S / 2)
    delays.clear()
    meter.start()
    await asyncio.sleep(seconds)
    usage = meter.stop()
    window = delays.copy()
    await outcome.settle(GRACE_S + seconds)
    for client in clients:
        client.transport.abort()
    return Samples(len(window), usage, window, first)


def percentile(values: Sequence[int], percent: float) -> float:
    """In microseconds, of values in nanoseconds; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("mode", choices=["unary", "stream"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--rate", type=float, default=4000, help="requests a second; 0: closed loop"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--proxy-pid", type=int, action="append", default=[])
    args = parser.parse_args()
    meter = Meter(args.proxy_pid, [], proxy_core=0)
    gc.freeze()
    if args.mode == "unary":
        run = run_unary(
            [args.port],
            meter,
            seconds=args.seconds,
            rate=args.rate,
            connections=args.connections,
        )
    else:
        run = run_streams([args.port], meter, seconds=args.seconds, streams=args.streams)
    try:
        samples = uvloop.run(run)
    except LoadError as error:
        raise SystemExit(f"FAILED: {error}") from None
    print(
        f"{samples.units} {args.mode} units in {samples.usage.wall_ns / 1e9:.2f} s, all correct; "
        f"p50 {percentile(samples.delays, 50):.0f} µs, p99 {percentile(samples.delays, 99):.0f} µs"
        f", proxy {samples.usage.proxy_ns / samples.units / 1000:.2f} µs of CPU each"
    )


if __name__ == "__main__":
    main()
