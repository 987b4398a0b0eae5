"""Judges exchanges: each ends in a whole answer, in an honest error, or with its client gone.

Pure: what engines did and what a client got go in, a verdict comes out.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from enum import StrEnum

from e2e.chaos.acts import End
from e2e.chaos.clients import Got
from e2e.chaos.engines import Attempt
from e2e.chaos.visits import Bad, Wish

ERROR_EVENT = re.compile(
    rb"\n\n(?:event: error\n)?data: (\{[^\n]*\"code\":\s?\""
    rb"(?:upstream_disconnected|upstream_timeout|server_shutting_down)\"[^\n]*\})\n\n\Z"
)
OWN_ERRORS = {
    408: {"request_timeout"},
    429: {"insufficient_quota"},
    502: {"bad_gateway"},
    503: {"overloaded", "no_healthy_backend", "model_loading"},
    504: {"gateway_timeout"},
}
MAX_SENDS = 6
"""Two moves, and each of three attempts may begin on a connection that turns out to be stale."""


class Ending(StrEnum):
    """How an exchange ended."""

    WHOLE = "whole answer"
    ENGINE_ERROR = "error of an engine, passed on"
    OWN_ERROR = "error of the router"
    ERROR_EVENT = "stream ended by an error event"
    SHORT = "answer visibly cut short"
    GONE = "client gone"


@dataclass(slots=True)
class Exchange:
    """One request: what was wished, what engines did, what the client got.

    Attributes:
        got: None where the client left.
        before: the answer before this one, where the client pipelined.
        calm: no engine suffered from the weather meanwhile.
        left_at: monotonic time at which the client left; 0.0 else.
    """

    wish: Wish
    manner: str
    attempts: list[Attempt] = field(default_factory=list)
    got: Got | None = None
    before: Got | None = None
    calm: bool = True
    left_at: float = 0.0


class Violation(Exception):
    """What must never be."""


def judge(exchange: Exchange) -> Ending:
    """The exchange's ending.

    Raises:
        Violation: it has none that is allowed.
    """
    _judge_sends(exchange)
    got = exchange.got
    if got is None:
        return Ending.GONE
    if got.lost == "never ended" or got.lost.startswith(("not HTTP", "surplus")):
        raise Violation(got.lost)
    if not got.status:
        return _judge_silence(exchange)
    if b"x-router-service" in got.headers:
        return _judge_engines_answer(exchange, got)
    return _judge_own_error(exchange, got)


def judge_bad(bad: Bad, got: Got) -> Ending:
    """The ending of a request that is none.

    Raises:
        Violation: it was not refused as it should have been.
    """
    if got.lost == "never ended":
        raise Violation(f"{bad.name}: {got.lost}")
    if got.status not in bad.statuses:
        raise Violation(f"{bad.name}: status {got.status}, lost {got.lost!r}")
    if not got.status:
        return Ending.SHORT
    code = _error_code(got)
    if code not in bad.codes:
        raise Violation(f"{bad.name}: status {got.status} with code {code}")
    return Ending.OWN_ERROR


def _judge_sends(exchange: Exchange) -> None:
    attempts = exchange.attempts
    if len(attempts) > MAX_SENDS:
        raise Violation(f"sent {len(attempts)} times")
    for attempt, later in itertools.pairwise(a for a in attempts if not a.disturbed):
        if _has_surely_begun(attempt, exchange.wish):
            raise Violation(f"sent again ({later.act.name}) after body bytes of {attempt.act.name};"
                            f" {_story(exchange)}")  # fmt: skip


def _has_surely_begun(attempt: Attempt, wish: Wish) -> bool:
    """Bytes of a good answer's body have surely reached the router, and may go on to the client."""
    act = attempt.act
    if act.status != 200 or attempt.disturbed or not attempt.done or act.end is End.RST:
        return False
    return act.is_whole or (act.name in {"breaks-off-fin", "chunk-cut"} and not wish.filtered)


def _judge_silence(exchange: Exchange) -> Ending:
    if exchange.manner in {"half-close", "no-reader", "late-head", "late-body"}:
        return Ending.GONE
    if exchange.before is not None and not (exchange.before.whole and exchange.before.keeps):
        return Ending.SHORT
    raise Violation(f"closed without an answer ({exchange.got.lost if exchange.got else ''})")


def _judge_engines_answer(exchange: Exchange, got: Got) -> Ending:
    body, service = bytes(got.body), got.headers[b"x-router-service"].decode()
    mine = [a for a in exchange.attempts if a.engine == service and a.act.status == got.status]
    if not mine:
        raise Violation(f"status {got.status} of {service}, which gave no such answer")
    if got.status < 500:
        last = [a for a in exchange.attempts if not a.disturbed][-1:]
        mine = [a for a in mine if a.disturbed or a in last]
    if got.whole:
        if any(a.act.is_whole and a.shown == body for a in mine):
            return Ending.WHOLE if got.status < 400 else Ending.ENGINE_ERROR
        return _judge_error_event(mine, body, exchange)
    return _judge_short(exchange, mine, body, got)


def _judge_error_event(mine: list[Attempt], body: bytes, exchange: Exchange) -> Ending:
    event = ERROR_EVENT.search(body)
    if event is None:
        raise Violation(f"looks whole and is not: {body[-120:]!r}; engine: {_story(exchange)}")
    json.loads(event[1])
    if not any(a.shown.startswith(body[: event.start()]) for a in mine):
        raise Violation(
            f"bytes that the engine did not send, before an error event: {body[:200]!r}"
        )
    if exchange.calm and exchange.manner != "no-reader" and _engine_finished(mine):
        raise Violation("an error event although the engine's answer was whole")
    return Ending.ERROR_EVENT


def _judge_short(exchange: Exchange, mine: list[Attempt], body: bytes, got: Got) -> Ending:
    if not any(a.shown.startswith(body) for a in mine):
        raise Violation(f"not the engine's bytes, cut short: {body[:200]!r}; {_story(exchange)}")
    if exchange.manner in {"no-reader", "half-close"}:
        return Ending.SHORT
    if exchange.calm and _engine_finished(mine):
        raise Violation(f"cut short although the engine's answer was whole ({got.lost})")
    streams = got.headers.get(b"content-type", b"").startswith(b"text/event-stream")
    if streams and b"content-length" not in got.headers and exchange.manner != "slow-reader":
        raise Violation(f"a stream without its error event ({got.lost}); {_story(exchange)}")
    return Ending.SHORT


def _engine_finished(mine: list[Attempt]) -> bool:
    return bool(mine) and all(
        a.act.is_whole and a.done and not a.disturbed and a.act.end is not End.RST for a in mine
    )


def _judge_own_error(exchange: Exchange, got: Got) -> Ending:
    if not got.whole:
        raise Violation(f"the router's own answer {got.status} is cut short")
    code = _error_code(got)
    if code not in OWN_ERRORS.get(got.status, ()):
        raise Violation(f"status {got.status} with code {code}; engine: {_story(exchange)}")
    if got.status in {429, 503} and not got.headers.get(b"retry-after", b"").isdigit():
        raise Violation(f"{got.status} without Retry-After")
    if got.status == 408 and exchange.manner not in {"late-head", "late-body"}:
        raise Violation("408 to a client in good time")
    if exchange.calm and not any(a.disturbed for a in exchange.attempts):
        _judge_reason(exchange, got.status)
    return Ending.OWN_ERROR


def _judge_reason(exchange: Exchange, status: int) -> None:
    """With no weather about, an error of the router's own must follow from what an engine did."""
    last = exchange.attempts[-1] if exchange.attempts else None
    if status == 502 and (last is None or (last.act.is_whole and last.act.end is not End.RST)):
        raise Violation(f"502 although no engine broke the exchange; {_story(exchange)}")
    if status == 504 and (last is None or last.act.end is not End.STALL):
        raise Violation(f"504 although no engine was silent; {_story(exchange)}")


def _error_code(got: Got) -> str:
    try:
        content = json.loads(bytes(got.body))
    except ValueError:
        raise Violation(
            f"status {got.status} with a body that is not JSON: {got.body[:80]!r}"
        ) from None
    error = content.get("error")
    keys = {"message", "type", "code"} | (set() if content.get("type") == "error" else {"param"})
    if not isinstance(error, dict) or set(error) != keys or not error["message"]:
        raise Violation(f"status {got.status} with an error of another form: {got.body[:200]!r}")
    if b"x-request-id" not in got.headers:
        raise Violation(f"status {got.status} without x-request-id")
    code: str = error["code"]
    return code


def _story(exchange: Exchange) -> str:
    """What the engines did, one after the other; times are milliseconds after the first."""
    if not exchange.attempts:
        return "no engine was asked"
    began = exchange.attempts[0].at
    return ", ".join(
        f"{a.engine}:{a.act.name}{'' if a.done else ' (not done)'}"
        f"{' (disturbed)' if a.disturbed else ''} at {(a.at - began) * 1e3:.1f}"
        + (f" left at {(a.left_at - began) * 1e3:.1f}" if a.left_at else "")
        for a in exchange.attempts
    )
