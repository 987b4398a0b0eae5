"""A fleet without a network: what its tests build it from."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from router.config.settings import EjectionSettings
from router.fleet.fleet import Fleet
from router.fleet.service import Health, Service
from router.metrics import Metrics
from router.model import ModelCard, ServiceSpec, ServiceState
from router.routing import POLICIES

HEALTHY = Health(ServiceState.HEALTHY, ever_healthy=True)
UNHEALTHY = Health(ServiceState.UNHEALTHY, failures=3, ever_healthy=True)


def spec(name: str, models: tuple[str, ...] | None = ("m",), **more) -> ServiceSpec:
    return ServiceSpec(
        **{"name": name, "url": f"http://{name}:8000", "source": "yaml", "models": models, **more}
    )


def card(model: str, **row) -> ModelCard:
    return ModelCard(model, row.get("max_model_len"), {"id": model, **row})


def build(*specs: ServiceSpec, aliases: Mapping[str, str] | None = None, healthy=True) -> Fleet:
    """A fleet of these, all healthy unless told otherwise; its clock stands at 1000."""
    fleet = Fleet(
        Metrics("0"),
        policy=POLICIES["round_robin"],
        aliases=aliases or {},
        ejection=EjectionSettings(),
        clock=lambda: 1000.0,
    )
    fleet.publish("yaml", specs)
    if healthy:
        for service in fleet.services:
            fleet.set_health(service, HEALTHY)
    return fleet


def state_of(service: Service) -> str:
    """As `/services` shows it now."""
    return str(service.state(monotonic()))


def named(fleet: Fleet, name: str) -> Service:
    """The published service of this name."""
    (found,) = (s for s in fleet.services if s.name == name and not s.removed)
    return found
