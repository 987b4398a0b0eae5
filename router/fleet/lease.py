"""A lease: one slot of a service in a request's hands, and what the request tells of it."""

from __future__ import annotations

from typing import Protocol

from router.fleet.service import Service


class Lessor(Protocol):
    """Whose slots they are: the fleet."""

    def note_success(self, service: Service) -> None:
        """An answer began well."""

    def note_failure(self, service: Service, reason: str, wait_s: float | None) -> None:
        """A request failed before its first byte."""

    def give_back(self, service: Service, *, untold_trial: bool) -> None:
        """Take a slot back; `untold_trial`: a trial of an ejected service that told nothing."""


class Lease:
    """One slot of a service. Given back exactly once, however often `release` is called."""

    __slots__ = ("_fleet", "_told", "_trial", "service")

    def __init__(self, fleet: Lessor, service: Service, *, trial: bool) -> None:
        self._fleet: Lessor | None = fleet
        self._told = False
        self._trial = trial
        self.service = service

    def succeeded(self) -> None:
        """The answer began well."""
        if self._fleet is not None and not self._told:
            self._told = True
            self._fleet.note_success(self.service)

    def failed(self, reason: str, wait_s: float | None = None) -> None:
        """It failed before its first byte; `wait_s`: the engine's `Retry-After`."""
        if self._fleet is not None and not self._told:
            self._told = True
            self._fleet.note_failure(self.service, reason, wait_s)

    def release(self) -> None:
        """Give the slot back. Does not await; a second call does nothing."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.give_back(self.service, untold_trial=self._trial and not self._told)
