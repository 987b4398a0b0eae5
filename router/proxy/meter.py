"""What a request may cost and did cost: reserved before it is sent, settled once.

The bound on a prompt is its bytes; only where that no longer fits in what is left is the engine
asked to count, so the question costs nobody anything until the end of a quota is near.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from router.errors import InsufficientQuota, InvalidValue
from router.fleet.fleet import Fleet
from router.fleet.service import Service
from router.ledger import Kind, Ledger, Refusal, Reservation
from router.limits.estimate import PromptFrames, believed
from router.log import get_logger
from router.model import NO_USAGE, Usage
from router.openai.body import is_true
from router.openai.cost import FRAME_TOKENS, Cost, is_countable, most
from router.openai.paths import Dialect, InferencePath
from router.openai.stream_taps import NumberedTap, UsageTap
from router.openai.unary_tap import BodyTap
from router.openai.usage import Tap
from router.proxy.admit import Wanted
from router.proxy.prompt_counts import PromptCounts
from router.proxy.rate_lines import lines_of, set_form
from router.proxy.stream_usage import StreamUsage, stream_usage
from router.proxy.upstream import Upstreams

_log = get_logger("router.proxy")
_BYTES_A_TOKEN = 4
_NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


class Answered(Protocol):
    """An answer of which the client has got at least one byte.

    Attributes:
        service: that gave it.
        status: HTTP status.
        is_whole: the client has got all of it.
        usage: tokens, as the engine told them.
        events: that it came in, for engines that tell no usage.
    """

    service: Service
    status: int
    is_whole: bool
    usage: Usage

    @property
    def events(self) -> int:
        """See above."""


class Unmetered:
    """The meter of a request that nobody pays for. Also the interface of the others.

    Attributes:
        changes: fields of the body that must be sent with these values.
        charged: what was charged in the end; None where nobody pays.
    """

    __slots__ = ()

    changes: Mapping[str, Any] = _NO_CHANGES
    charged: Usage | None = None

    @property
    def weight(self) -> int:
        """Tokens it may cost: what its turn in a queue is weighed by."""
        return 1

    def tap(self, path: InferencePath, *, streams: bool) -> Tap:
        """What reads the usage of an answer."""
        if not streams:
            return BodyTap()
        return NumberedTap() if path.dialect is Dialect.RESPONSES else UsageTap()

    def rate_lines(self, now: float) -> bytes:  # noqa: ARG002 - others need it
        """The `x-ratelimit-*` header lines of the answer, each ended by CRLF.

        Args:
            now: monotonic seconds.
        """
        return b""

    def progress(self, tap: Tap | None) -> None:
        """Note what an answer has cost so far; None: it is awaited still."""

    def close(self, answered: Answered | None) -> None:
        """Charge what was answered, or nothing. Does not await; a second call does nothing."""


class Meter(Unmetered, msgspec.Struct, eq=False, gc=False):
    """One request's reservation, from before it is sent to after it has ended.

    Attributes:
        metering: that it belongs to.
        model: full name of what is asked for.
        size: of the request's body in bytes; the body itself is not kept.
        cost: the most it may cost.
        reservation: what the ledger holds for it.
        changes, charged: see `Unmetered`.
        asked: what the engine is asked to tell; None: nothing that it would not tell by itself.
    """

    metering: Metering
    model: str
    size: int
    cost: Cost
    reservation: Reservation
    changes: Mapping[str, Any] = _NO_CHANGES
    charged: Usage | None = NO_USAGE
    asked: StreamUsage | None = None

    @property
    def weight(self) -> int:
        """Tokens it may cost."""
        return self.cost.prompt_tokens + self.cost.completion_tokens

    def prepare(self, wanted: Wanted) -> None:
        """Settle what the engine must be told beyond the client's own words."""
        try:
            if self.reservation.clamped or self.cost.must_limit:
                self._limit_answer()
            if wanted.path.tells_usage and wanted.fields.streams:
                self._ask_usage(wanted)
        except BaseException:  # a fault gives the reservation back
            self.close(None)
            raise

    def _ask_usage(self, wanted: Wanted) -> None:
        """Have the engine tell what a stream costs."""
        limited = self.reservation.windows.limits_tokens
        asked = self.asked = stream_usage(wanted.fields, continuous=limited)
        if asked is not None and asked.options is not None:
            self.changes = {**self.changes, "stream_options": asked.options}

    def _limit_answer(self) -> None:
        """Have the engine stop where the reservation ends, as it would not by itself."""
        cost, reservation = self.cost, self.reservation
        matters = reservation.clamped or reservation.windows.limits_tokens
        if cost.limit_field is not None and matters:
            each = reservation.granted_completion_tokens // cost.choices
            self.changes = {cost.limit_field: max(1, each)}

    def tap(self, path: InferencePath, *, streams: bool) -> Tap:
        """What reads the usage of an answer, and takes out what the client did not ask for."""
        if not streams:
            return BodyTap()
        return super().tap(path, streams=True) if self.asked is None else self.asked.tap()

    def rate_lines(self, now: float) -> bytes:
        """What is left of the organization's tightest windows."""
        windows, metering = self.reservation.windows, self.metering
        if now >= windows.form_until and not set_form(windows, now, metering.clock()):
            return metering.rate_lines(self.reservation.organization)
        requests, tokens = windows.left_requests, windows.left_tokens
        if requests < 0 or tokens < 0:  # after an overrun, or with a limit that was lowered
            requests, tokens = max(0, requests), max(0, tokens)
        return windows.form % (requests, tokens)

    def progress(self, tap: Tap | None) -> None:
        """Note what an answer has cost so far, in case the router does not live to its end."""
        if tap is None:
            self.reservation.touch()
            return
        usage = self._believed(tap.usage)
        self.reservation.progress(usage.prompt_tokens, usage.completion_tokens)

    def close(self, answered: Answered | None) -> None:
        """Charge what was answered; nothing for what failed before its first byte or by status."""
        metering = self.metering
        if answered is None or answered.status >= 400:
            metering.ledger.release(self.reservation)
            return
        usage, cost = answered.usage, self.cost
        if (
            usage.prompt_tokens > cost.prompt_tokens
            or usage.completion_tokens > cost.completion_tokens
        ):
            usage = self._believed(usage)
            metering.note_more(self.model, cost, answered, usage)
        if not usage.prompt_tokens or not answered.is_whole:
            usage = self._used(answered, usage)
        if metering.ledger.settle(self.reservation, usage):
            self.charged = usage

    def _believed(self, usage: Usage) -> Usage:
        """As told, if it can be."""
        granted = self.reservation.granted_completion_tokens
        return believed(usage, self.cost, granted, self.metering.context(self.model))

    def _used(self, answered: Answered, usage: Usage) -> Usage:
        """As the engine told, or, where it has not told all, at least an event a token."""
        continuous = self.asked is not None and self.asked.continuous
        if not self.cost.prompt_tokens or (usage.total and continuous):
            return usage
        if answered.is_whole:
            self.metering.note_silent(answered.service.name)
        guessed = min(self.size // _BYTES_A_TOKEN, self.cost.prompt_tokens)
        prompt = usage.prompt_tokens or guessed
        completion = max(usage.completion_tokens, answered.events)
        return Usage(prompt, completion if self.cost.completion_tokens else 0)


class Metering:
    """Opens and ends meters over the ledger.

    Args:
        ledger: decides.
        fleet, upstreams: to ask an engine for an exact count.
        clock: seconds since the epoch.

    Attributes:
        frames: what prompts of a model cost beyond their bytes.
    """

    def __init__(
        self, ledger: Ledger, fleet: Fleet, upstreams: Upstreams, clock: Callable[[], float]
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.frames = PromptFrames()
        self._fleet = fleet
        self._prompts = PromptCounts(fleet, upstreams)
        self._silent: set[str] = set()
        self._unbelieved: set[str] = set()

    def open(self, organization: str, wanted: Wanted) -> Meter | None:
        """Reserve what `wanted` may cost; None: only the engine can tell whether it fits.

        Raises:
            InsufficientQuota: it does not fit in what is left.
        """
        fields = wanted.fields
        if fields.background and wanted.path.kind == "responses" and is_true(fields.background):
            raise InvalidValue(
                "`background` is not taken: an answer that is fetched later cannot be charged.",
                param="background",
            )
        model, body = wanted.model, wanted.body
        frame = self.frames.get(model, FRAME_TOKENS)  # what `[model]` gives, without a call
        cost = most(wanted.path, fields, body, self._fleet.contexts[model], frame)
        whole = cost.completion_tokens
        outcome = self.ledger.reserve(organization, cost.prompt_tokens, whole, self.clock(), whole)
        if not isinstance(outcome, Reservation):
            if outcome.kind is Kind.TOKENS:
                if is_countable(wanted.path, fields, body) and self._may_fit(organization, cost):
                    return None
                outcome = self._reserve_least(organization, cost)
            if isinstance(outcome, Refusal):
                raise self._refused(organization, outcome)
        meter = Meter(self, model, len(body), cost, outcome)
        if outcome.clamped or cost.must_limit or fields.stream is not None:
            meter.prepare(wanted)
        return meter

    async def open_counted(self, organization: str, wanted: Wanted) -> Meter:
        """The same near the end of a quota: with the engine's own count of the prompt.

        Raises:
            InsufficientQuota: it does not fit in what is left.
            NoHealthyBackend, ModelLoading: there is no engine to ask.
        """
        cost = self.estimate(wanted, await self._prompts.count(wanted))
        outcome = self._reserve_least(organization, cost)
        if isinstance(outcome, Refusal):
            raise self._refused(organization, outcome)
        meter = Meter(self, wanted.model, len(wanted.body), cost, outcome)
        meter.prepare(wanted)
        return meter

    def estimate(self, wanted: Wanted, counted: int | None = None) -> Cost:
        """The most that a request may cost; nothing is reserved.

        Args:
            wanted: what is asked for.
            counted: the prompt's true size, where an engine has told it.
        """
        model = wanted.model
        return most(
            wanted.path,
            wanted.fields,
            wanted.body,
            self._fleet.contexts[model],
            self.frames[model],
            counted,
        )

    def _may_fit(self, organization: str, cost: Cost) -> bool:
        """Whether the shortest prompt would fit in what is left: else there is nothing to count."""
        tokens = self.ledger.tightest(organization, self.clock()).tokens
        return tokens is None or tokens.remaining is None or tokens.remaining > cost.least_tokens

    def _reserve_least(self, organization: str, cost: Cost) -> Reservation | Refusal:
        """What is left for the answer, if that is as much as it must be let have."""
        return self.ledger.reserve(
            organization,
            cost.prompt_tokens,
            cost.completion_tokens,
            self.clock(),
            cost.least_tokens,
        )

    def note_silent(self, service: str) -> None:
        """Say, once a service, that its tokens are counted by events."""
        if service not in self._silent:
            self._silent.add(service)
            _log.warning("usage_not_reported", service=service, counted_by="events")

    def note_more(self, model: str, cost: Cost, answered: Answered, usage: Usage) -> None:
        """Learn from an answer that cost more than it was taken for; or say that it cannot have.

        Args:
            model: that was asked.
            cost: what it was taken for.
            answered: and told more.
            usage: what of that is believed.
        """
        told = answered.usage
        if usage is told:
            self.frames.learn(model, cost, told.prompt_tokens, self.context(model))
        elif answered.service.name not in self._unbelieved:
            service = answered.service.name
            self._unbelieved.add(service)
            _log.warning("usage_not_believed", service=service, **msgspec.structs.asdict(told))

    def context(self, model: str) -> int | None:
        """Its context length in tokens; None when it is not known."""
        return self._fleet.contexts[model]

    def rate_lines(self, organization: str) -> bytes:
        """The `x-ratelimit-*` header lines of an organization; nothing for what has no limit."""
        now = self.clock()
        return lines_of(self.ledger.tightest(organization, now), now)

    def _refused(self, organization: str, refusal: Refusal) -> InsufficientQuota:
        when = f"{refusal.kind} a {refusal.period}"
        how = "held by running requests" if refusal.is_held else "used up"
        return InsufficientQuota(
            f"The quota of {refusal.limit} {when} of organization `{organization}` is {how}: "
            f"{refusal.used} used, {refusal.reserved} reserved by running requests, "
            f"{refusal.requested} needed for this one. It ends at {_utc(refusal.resets_at)}.",
            retry_after_s=refusal.retry_after_s(self.clock()),
        )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
