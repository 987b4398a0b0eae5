"""Who asks: what a key stands for."""

from __future__ import annotations

from dataclasses import dataclass

from router.access.scope import ModelScope


@dataclass(frozen=True, slots=True)
class Identity:
    """What a request may do by the key it came with.

    Attributes:
        organization: who pays; None: nobody, the router serves anonymously.
        key_id: what logs call the key; None without one.
        priority: in a queue, higher goes first.
        scope: the models it may use.
    """

    organization: str | None
    key_id: str | None
    priority: int
    scope: ModelScope

    def allows(self, model: str) -> bool:
        """Whether the full name of a model is within the key's scope."""
        return self.scope.allows(model)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The scope as it was written."""
        return self.scope.patterns


ANONYMOUS = Identity(None, None, 0, ModelScope(("*",)))
"""Everybody, while no key exists anywhere."""
