"""What `backends.yaml` may hold: frozen models with every default, unit and range.

They check a value by itself; what concerns several values at once is in `checks`. Times are
seconds (`_s`), sizes mebibytes (`_mb`). Secrets are left out of every `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.config.fields import (
    ConfigPath,
    DockerEndpoint,
    GpuLabel,
    LedgerUrl,
    ListenHost,
    ModelName,
    Moment,
    Name,
    NetworkField,
    OptionalSecret,
    OptionalSha256,
    Policy,
    Port,
    Quota,
    Seconds,
    ServiceUrl,
    Sha256,
    UrlPath,
)
from router.model import ServiceSpec


class Section(BaseModel):
    """Base of every part of the file: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerSettings(Section):
    """`server`: where the router listens, whom it trusts, and how long and how much it waits for.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        trusted_proxies: peers whose `X-Forwarded-For` is believed.
        status_allow: peers that see the status pages without the admin key.
        admin_key_sha256: lower-case hexadecimal; None: no admin access.
        header_timeout_s: until a request's head is there.
        body_timeout_s: until a request's body is there.
        max_connections: client connections at once.
        request_timeout_s: until the first byte of the answer.
        idle_timeout_s: between two chunks of a stream.
        drain_timeout_s: that running requests get at the end.
        max_body_mb: largest request body, MiB.
        max_body_memory_mb: of all request bodies that are held at once, MiB.
    """

    host: ListenHost = "0.0.0.0"  # noqa: S104 - the contract's default: containers need it
    port: Port = 8000
    trusted_proxies: tuple[NetworkField, ...] = ()
    status_allow: tuple[NetworkField, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    admin_key_sha256: OptionalSha256 = Field(default=None, repr=False)
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 60
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 8192
    request_timeout_s: Seconds = 300
    idle_timeout_s: Seconds = 120
    drain_timeout_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 30
    max_body_mb: Annotated[int, Field(ge=1, le=1024)] = 32
    max_body_memory_mb: Annotated[int, Field(ge=1, le=1_048_576)] = 1024

    @model_validator(mode="after")
    def _one_fits(self) -> ServerSettings:
        if self.max_body_memory_mb < self.max_body_mb:
            raise ValueError(
                "max_body_memory_mb is less than max_body_mb;"
                f" write max_body_memory_mb: {self.max_body_mb} or more"
            )
        return self

    @property
    def max_body_bytes(self) -> int:
        """Largest request body, bytes."""
        return self.max_body_mb * 1024 * 1024

    @property
    def max_body_memory_bytes(self) -> int:
        """Of all request bodies that are held at once, bytes."""
        return self.max_body_memory_mb * 1024 * 1024


class HealthSettings(Section):
    """`health`: how services are probed.

    Attributes:
        interval_s: between two probes of a service.
        timeout_s: of one probe.
        unhealthy_after: failures in a row.
        healthy_after: successes in a row.
        path: where a service is probed, unless it names its own.
        hung_after_s: with requests running and no token for so long, a service hangs.
        metrics_interval_s: between two readings of a service's `/metrics`.
    """

    interval_s: Seconds = 30
    timeout_s: Seconds = 5
    unhealthy_after: Annotated[int, Field(ge=1, le=1000)] = 3
    healthy_after: Annotated[int, Field(ge=1, le=1000)] = 1
    path: UrlPath = "/health"
    hung_after_s: Seconds = 30
    metrics_interval_s: Seconds = 5


class EjectionSettings(Section):
    """`ejection`: how long a service that fails real requests is left out.

    Attributes:
        consecutive_failures: that eject a service.
        base_s: first time out; it doubles with each ejection in a row.
        max_s: longest time out.
    """

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    base_s: Seconds = 5
    max_s: Seconds = 300

    @model_validator(mode="after")
    def _ordered(self) -> EjectionSettings:
        if self.max_s < self.base_s:
            raise ValueError(f"max_s is less than base_s; write max_s: {self.base_s:g} or more")
        return self


class DockerSettings(Section):
    """`discovery.docker`: services from the labels of containers.

    Attributes:
        enabled: whether to look.
        endpoint: of the Docker engine, or of a read-only filter before it.
        network: the one on which services are reached.
    """

    enabled: bool = False
    endpoint: DockerEndpoint = "unix:///var/run/docker.sock"
    network: Annotated[Name, Field(max_length=64)] = "inference-network"


class DiscoverySettings(Section):
    """`discovery`: where services come from, beside this file.

    Attributes:
        docker: labels of containers.
        files: folder of YAML files, each a list of services; relative to this file's folder.
    """

    docker: DockerSettings = DockerSettings()
    files: ConfigPath | None = None


class PerIpSettings(Section):
    """`limits.per_ip`: requests a client address may send.

    Attributes:
        requests_per_second: sustained rate.
        burst: requests at once.
    """

    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 50
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100


class LimitsSettings(Section):
    """`limits`: what the router takes in before it refuses.

    Attributes:
        per_ip: rate of a client address.
        max_queue: requests that may wait for a slot, per model.
        queue_timeout_s: that one waits.
    """

    per_ip: PerIpSettings = PerIpSettings()
    max_queue: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    queue_timeout_s: Seconds = 30


class LedgerSettings(Section):
    """`ledger`: where quotas are kept.

    Attributes:
        url: `sqlite:///relative/path`, `sqlite:////absolute/path` or `memory://`.
    """

    url: LedgerUrl = Field(default="sqlite:///state/router.db", repr=False)

    @property
    def path(self) -> Path | None:
        """The database's file, as written; None for a ledger in memory."""
        if not self.url.startswith("sqlite:///"):
            return None
        return Path(self.url.removeprefix("sqlite:///"))


class KeySettings(Section):
    """`organizations[].keys[]`: one client key, known by its hash alone.

    Attributes:
        id: what logs call the key.
        sha256: of the key, lower-case hexadecimal.
        models: patterns (`*` stands for any characters) of the models it may use.
        expires: aware, UTC; a date in the file is its first instant. None: never.
        priority: higher goes first in a queue.
    """

    id: Name
    sha256: Sha256 = Field(repr=False)
    models: tuple[ModelName, ...] = ("*",)
    expires: Moment | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0


class OrganizationSettings(Section):
    """`organizations[]`: who shares a quota.

    Attributes:
        id: what logs, metrics and pages call it.
        daily_tokens: a UTC day; None: no limit.
        monthly_tokens: a UTC month; None: no limit.
        daily_requests: a UTC day; None: no limit.
        keys: any of them may be used.
    """

    id: Name
    daily_tokens: Quota | None = 10_000_000
    monthly_tokens: Quota | None = 300_000_000
    daily_requests: Quota | None = 100_000
    keys: tuple[KeySettings, ...] = ()


class ServiceSettings(Section):
    """`services[]`: one engine.

    Attributes:
        name: unique.
        url: `http://host:port`, without a trailing slash.
        models: served names; None: asked of the engine.
        api_key: the engine's own key.
        group: services that are interchangeable; None: the name.
        gpu: index or identifier, for people.
        weight: share of the load relative to others of the model.
        max_concurrency: requests at once; None: no limit.
        health_path: of its probe; None: `health.path`.
    """

    name: Name
    url: ServiceUrl
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=1000)] | None = None
    api_key: OptionalSecret = Field(default=None, repr=False)
    group: Name | None = None
    gpu: GpuLabel | None = None
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    max_concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    health_path: UrlPath | None = None

    def to_spec(self, *, health_path: str = "/health", source: str = "yaml") -> ServiceSpec:
        """The service as a source publishes it; `health_path` is that of a service without one."""
        return ServiceSpec(
            name=self.name,
            url=self.url,
            source=source,
            models=self.models,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            group=self.group or self.name,
            gpu=self.gpu,
            weight=self.weight,
            max_concurrency=self.max_concurrency,
            health_path=self.health_path or health_path,
        )


class RoutingSettings(Section):
    """`routing`: which of the services that could take a call does."""

    policy: Policy = "least_load"


class RouteSettings(Section):
    """`routes[]`: a path of its own for one model.

    Attributes:
        path: what clients post to.
        model: what answers, whatever the body says.
        upstream_path: the engine's path.
    """

    path: UrlPath
    model: ModelName
    upstream_path: UrlPath = "/v1/chat/completions"


class Settings(Section):
    """The whole of `backends.yaml`."""

    server: ServerSettings = ServerSettings()
    health: HealthSettings = HealthSettings()
    ejection: EjectionSettings = EjectionSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    limits: LimitsSettings = LimitsSettings()
    ledger: LedgerSettings = LedgerSettings()
    organizations: tuple[OrganizationSettings, ...] = ()
    services: tuple[ServiceSettings, ...] = ()
    routing: RoutingSettings = RoutingSettings()
    routes: tuple[RouteSettings, ...] = ()
    aliases: Mapping[ModelName, ModelName] = Field(default_factory=dict)


def service_specs(settings: Settings) -> tuple[ServiceSpec, ...]:
    """The services of the file, as its source publishes them."""
    return tuple(service.to_spec(health_path=settings.health.path) for service in settings.services)
