"""Reads and weighs an inference request as the pipeline would, and leaves it at that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from router.errors import InvalidValue
from router.fleet.catalog import Catalog
from router.openai.cost import Cost
from router.proxy.admit import Entry, Readable, read
from router.proxy.meter import Metering


class Scales:
    """Tells what a request asks for and may cost; sends, reserves and leases nothing.

    Args:
        catalog: of models, as it is now.
        metering: knows the bound of a cost.
        entries: path -> inference entry, as configured now.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        metering: Metering,
        entries: Callable[[], Mapping[str, Entry]],
    ) -> None:
        self._catalog = catalog
        self._metering = metering
        self._entries = entries

    def weigh(self, path: str, request: Readable) -> tuple[str, str, Cost]:
        """(full name of the model, path as the engine knows it, the most that it may cost).

        Raises:
            InvalidValue: `path` is no inference path.
            RouterError: the body is not what the path takes, or nothing serves its model.
        """
        entry = self._entries().get(path)
        if entry is None:
            raise InvalidValue(
                f"`path` must be an inference path like /v1/chat/completions, not {path[:200]!r}.",
                param="path",
            )
        wanted = read(entry, request, self._catalog())
        return wanted.model, wanted.path.upstream, self._metering.estimate(wanted)
