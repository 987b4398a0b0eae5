"""A lease: one slot of a service in a request's hands, and what the request tells of it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from router.fleet.service import Service


class Lessor(Protocol):
    """Whose slots they are: the fleet."""

    def note_success(self, service: Service) -> None:
        """An answer began well."""

    def note_failure(self, service: Service, reason: str, wait_s: float | None) -> None:
        """A request failed before its first byte."""

    def give_back(self, service: Service, *, untold_trial: bool) -> None:
        """Take a slot back; `untold_trial`: a trial of an ejected service that told nothing."""


class Lease(msgspec.Struct, eq=False, gc=False):
    """One slot of a service. Given back exactly once, however often `release` is called.

    Attributes:
        service: whose slot it is.
        trial: of a service that had failed; how it goes decides whether others may follow.
        lessor: where it is given back; None: it has been.
        told: how it went.
    """

    service: Service
    trial: bool
    lessor: Lessor | None
    told: bool = False

    def succeeded(self) -> None:
        """The answer began well."""
        if self.lessor is not None and not self.told:
            self.told = True
            self.lessor.note_success(self.service)

    def failed(self, reason: str, wait_s: float | None = None) -> None:
        """It failed before its first byte; `wait_s`: the engine's `Retry-After`."""
        if self.lessor is not None and not self.told:
            self.told = True
            self.lessor.note_failure(self.service, reason, wait_s)

    def release(self) -> None:
        """Give the slot back. Does not await; a second call does nothing."""
        lessor, self.lessor = self.lessor, None
        if lessor is not None:
            lessor.give_back(self.service, untold_trial=self.trial and not self.told)
