"""One line a request, for whoever asks tomorrow what happened: written off the hot path.

Lines are made of the samples that requests leave behind anyway, many at a time, and written by a
thread of their own. Never in a line: content, keys, addresses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from router.line_writer import LineWriter
from router.metrics import LAST, Sample

Form = Literal["json", "console"]


class Line(msgspec.Struct, omit_defaults=True, tag_field="event", tag="request"):
    """What is told of one request. Times are milliseconds, sizes bytes of bodies.

    Attributes:
        timestamp: when it ended, RFC 3339 in UTC.
        id: the request's, as in `x-request-id`.
        path: kind of the inference path; empty for other paths.
        outcome: `whole`, `client_gone`, `slow_client`, `upstream_broke`, `shut_down`, `refused`.
        status: as sent to the client; 0 where nothing was.
        code: of the router's own error.
        prompt_tokens, completion_tokens: as charged; as told by the engine where nobody pays.
        traceparent: the client's own, W3C Trace Context.
    """

    timestamp: str
    id: str
    path: str
    outcome: str
    status: int
    total_ms: float
    code: str = ""
    organization: str = ""
    key: str = ""
    model: str = ""
    service: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_ms: float = 0.0
    connect_ms: float = 0.0
    ttft_ms: float | None = None
    traceparent: str = ""

    @property
    def is_success(self) -> bool:
        """The client got a whole answer that is no error."""
        return self.outcome == "whole" and self.status < 400


class AccessLog:
    """Makes the lines.

    Args:
        writer: writes them.
        form: one JSON object a line, or columns for people.
        share: of the successful requests that get a line, 0 to 1; all others always do.
        chance: gives 0 to 1, for the share.
    """

    def __init__(
        self,
        writer: LineWriter,
        form: Form,
        share: float = 1.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._writer = writer
        self._render = _as_json if form == "json" else _as_columns
        self._share = share
        self._chance = chance

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._writer.dropped

    def take(self, service: str, samples: Sequence[Sample]) -> None:
        """Tell of the requests among these attempts: those that were the last of their request."""
        epoch = time.time() - time.monotonic()
        self._write([_line(service, each, epoch) for each in samples if each[LAST]])

    def add(self, line: Line) -> None:
        """Tell of a request that no service answered."""
        self._write([line])

    def _write(self, lines: list[Line]) -> None:
        told = [line for line in lines if self._is_told(line)]
        if told:
            self._writer.put(b"".join(map(self._render, told)), len(told))

    def _is_told(self, line: Line) -> bool:
        return self._share >= 1 or not line.is_success or self._chance() < self._share


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond; `seconds` since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _line(service: str, sample: Sample, epoch: float) -> Line:
    """The line of a request's last attempt; `epoch` is the monotonic clock's zero."""
    (
        ended, (path, status), _, _, _, _, _, duration, first, queued, _, asked, answered, prompt,
        completion, model, organization, connected, _, request_id, key_id, outcome, charged, trace,
    ) = sample  # fmt: skip
    return Line(
        moment(epoch + ended),
        request_id.decode("latin-1"),
        path,
        outcome,
        status if first >= 0 else 0,
        _ms(duration),
        organization=organization,
        key=key_id or "",
        model=model,
        service=service,
        bytes_in=asked,
        bytes_out=answered,
        prompt_tokens=prompt if charged is None else charged.prompt_tokens,
        completion_tokens=completion if charged is None else charged.completion_tokens,
        queue_ms=_ms(queued),
        connect_ms=_ms(connected),
        ttft_ms=_ms(first) if first >= 0 else None,
        traceparent=trace.decode("latin-1") if trace is not None else "",
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _as_json(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _as_columns(line: Line) -> bytes:
    who = f"{line.organization or 'anonymous'}{'/' + line.key if line.key else ''}"
    ttft = "" if line.ttft_ms is None else f" ttft {line.ttft_ms:.0f} ms"
    told = line.code or line.outcome
    return (
        f"{line.timestamp} {line.status or '---'} {told:<14} {line.path or '-'}"
        f" {line.model or '-'} -> {line.service or '-'} {line.total_ms:.0f} ms{ttft}"
        f" tokens {line.prompt_tokens}+{line.completion_tokens} {who} {line.id}\n"
    ).encode()
