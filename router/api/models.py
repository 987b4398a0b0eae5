"""`GET /v1/models` and `GET /v1/models/{id}`: the union over healthy services, answered here."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from router.access.identity import Identity
from router.api.answer import Answer, Asking, json_answer
from router.errors import ModelNotAllowed
from router.fleet.catalog import no_healthy_service
from router.fleet.fleet import Fleet
from router.fleet.service import Service


class ModelPages:
    """The model list, over the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def list(self, _asking: Asking, identity: Identity) -> Answer:
        """`GET /v1/models`: one row a model that the key may use, aliases included."""
        catalog = self._fleet.catalog
        names = {model: model for model in catalog.members}
        rows = [
            _row(name, model, catalog.members.get(model, ()))
            for name, model in ({**catalog.aliases, **names}).items()
            if identity.allows(model)
        ]
        return json_answer({"object": "list", "data": [row for row in rows if row is not None]})

    def one(self, asking: Asking, identity: Identity) -> Answer:
        """`GET /v1/models/{id}`; the id may hold slashes, and may be an alias or a short name.

        Raises:
            RouterError: no such model, one the key may not use, or nothing healthy serves it.
        """
        asked = unquote(asking.path.partition("/models/")[2])
        catalog = self._fleet.catalog
        model = catalog.resolve(asked)
        if not identity.allows(model):
            raise ModelNotAllowed(f"This key may not use the model `{model}`.", param="model")
        row = _row(asked, model, catalog.members[model])
        if row is None:
            raise no_healthy_service(model)
        return json_answer(row)


def _row(name: str, model: str, services: tuple[Service, ...]) -> dict[str, Any] | None:
    """The engine's own row under the name `name`; None where nothing healthy serves `model`."""
    healthy = [service for service in services if service.is_healthy]
    if not healthy:
        return None
    row: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "vllm"}
    for service in healthy:
        card = service.cards.get(model)
        if card is not None:
            return {**row, **card.row, "id": name}
    return {**row, "created": int(healthy[0].since)}
