"""Which models there are and who serves them: a snapshot, rebuilt when the fleet changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from router.errors import ModelAmbiguous, ModelLoading, ModelNotFound, NoHealthyBackend
from router.fleet.service import Service
from router.model import ServiceState

LOADING_RETRY_AFTER_S = 5.0
UNHEALTHY_RETRY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Catalog:
    """A frozen picture of the fleet's models.

    Attributes:
        members: model -> services that serve it, whatever their health.
        aliases: alias -> model.
        short_names: what follows the last `/` -> models that end so.
        unlearnt: services whose models are not known.
        configured: models that the configuration names beside its services'.
    """

    members: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    short_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlearnt: tuple[Service, ...] = ()
    configured: Collection[str] = ()

    def resolve(self, name: str) -> str:
        """The model that `name` means: exactly, as an alias, or as a short name.

        Raises:
            ModelAmbiguous: a short name of several models.
            ModelNotFound: nothing serves it.
            ModelLoading: nothing is known to serve it, but a service has yet to tell its models.
            NoHealthyBackend: the configuration names it, and no service has told that it serves it.
        """
        if name in self.members:
            return name
        target = self.aliases.get(name)
        if target is not None and target in self.members:
            return target
        fits = self.short_names.get(name, ())
        if len(fits) == 1:
            return fits[0]
        if fits:
            listed = ", ".join(fits)
            raise ModelAmbiguous(
                f"`{name}` may mean any of {listed}. Use the full name.", param="model"
            )
        starting = sum(each.health.state is ServiceState.LOADING for each in self.unlearnt)
        if starting:
            raise ModelLoading(
                f"The model `{_shown(name)}` is not known yet: {starting} service(s) are still "
                "starting. Try again soon.",
                param="model",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )
        if target is not None or name in self.configured:
            raise no_healthy_service(name)
        raise ModelNotFound(
            f"The model `{_shown(name)}` does not exist here. GET /v1/models lists what does.",
            param="model",
        )

    def longest_context(self, model: str) -> int | None:
        """Longest context, in tokens, of the services that may serve `model` now.

        None where one of them has not told.
        """
        longest = 0
        for service in self.members.get(model, ()):
            card = service.cards.get(model)
            if card is not None and card.max_model_len is not None:
                longest = max(longest, card.max_model_len)
            elif service.usable:
                return None
        return longest or None


class Contexts(dict[str, int | None]):
    """Full name of a model -> its longest context in tokens, worked out when first asked for.

    Args:
        longest: works it out.
    """

    def __init__(self, longest: Callable[[str], int | None]) -> None:
        super().__init__()
        self._longest = longest

    def __missing__(self, model: str) -> int | None:
        context = self[model] = self._longest(model)
        return context


def no_healthy_service(model: str) -> NoHealthyBackend:
    """The error where services of `model` may come back."""
    return NoHealthyBackend(
        f"No healthy service for `{model}` right now.", retry_after_s=UNHEALTHY_RETRY_AFTER_S
    )


def _shown(name: str) -> str:
    return name if len(name) <= 200 else name[:200] + "…"


def build_catalog(
    services: Iterable[Service], aliases: Mapping[str, str], routed: Iterable[str] = ()
) -> Catalog:
    """Take the picture; `routed` are the models of named routes."""
    members: dict[str, list[Service]] = {}
    unlearnt: list[Service] = []
    for service in services:
        if service.removed:
            continue
        if not service.models:
            unlearnt.append(service)
        for model in service.models:
            members.setdefault(model, []).append(service)
    short_names: dict[str, list[str]] = {}
    for model in members:
        prefix, slash, short = model.rpartition("/")
        if slash and prefix and short:
            short_names.setdefault(short, []).append(model)
    return Catalog(
        {model: tuple(those) for model, those in members.items()},
        dict(aliases),
        {short: tuple(models) for short, models in short_names.items()},
        tuple(unlearnt),
        frozenset({*aliases.values(), *routed}),
    )
