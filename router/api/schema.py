"""What the router's own pages answer, as models: `/openapi.json` is drawn from them.

The pages themselves build plain dictionaries, which cost less; tests hold real answers against
these models, in which nothing is optional that is always there and nothing more is let pass.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from router.ledger import Kind, Period
from router.model import ServiceState

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Live(_Form):
    """The process serves."""

    status: Literal["live"]


class Ready(_Form):
    """Whether it takes requests."""

    status: Literal["starting", "running", "draining"]


class Health(_Form):
    """The router and its services in a few words."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description="All services are healthy, some are, none is."
    )
    router: Literal["running", "draining"]
    healthy_services: Annotated[str, Field(pattern=r"^\d+/\d+$", examples=["2/2"])]
    timestamp: datetime
    backends: dict[str, list[str]] = Field(
        description="Service group to the URLs of its healthy members."
    )
    generation: Annotated[int, Field(ge=1)] = Field(
        description="Configurations that have run since the start, this one included."
    )
    last_reload_error: str | None = Field(
        description="Why the configuration file as it is now does not run; null: it does."
    )


class Service(_Form):
    """One engine."""

    name: str
    url: str
    healthy: bool = Field(description="It may be given requests.")
    state: ServiceState
    since: datetime | None = Field(description="When the state began.")
    models: list[str]
    group: str
    source: str = Field(description="Who published it: `yaml`, `docker` or `files`.")
    weight: Annotated[int, Field(ge=1)]
    in_flight: Count = Field(description="Requests that it holds now.")
    max_concurrency: Annotated[int, Field(ge=1)] | None = Field(description="null: no limit.")
    last_check: datetime | None = Field(description="End of the latest probe.")
    last_error: str | None
    gpu: str | None


class Services(_Form):
    """Every service and what is known of it."""

    services: list[Service]
    total: Count


class ServiceStats(_Form):
    """Counts since the start; times and rates are of the last minute."""

    name: str
    healthy: bool
    request_count: Count
    error_count: Count
    response_time: Seconds = Field(description="Mean, seconds.")
    ttft: Seconds = Field(description="Mean time to the first byte of an answer, seconds.")
    in_flight: Count
    queued: Count = Field(description="Requests that wait for a slot of one of its models.")
    prompt_tokens: Count
    completion_tokens: Count
    tokens_per_second: Seconds = Field(description="Completion tokens.")


class Limits(_Form):
    """What an organization may use; null: no limit."""

    daily_tokens: Count | None
    monthly_tokens: Count | None
    daily_requests: Count | None


class Organization(_Form):
    """What an organization has used."""

    id: str
    tokens_today: Count
    tokens_month: Count
    requests_today: Count
    limits: Limits


class Stats(_Form):
    """Numbers by service, and by organization for the admin key."""

    total_services: Count
    healthy_services: Count
    uptime_s: Seconds
    services: list[ServiceStats]
    organizations: list[Organization] = Field(
        default=[], description="With the admin key alone; else left out."
    )


class Model(BaseModel):
    """A model that something healthy serves; more fields are the engine's own."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: Count = Field(description="Seconds since the epoch.")
    owned_by: str


class Models(_Form):
    """Models that the key may use, aliases included."""

    object: Literal["list"]
    data: list[Model]


class Window(_Form):
    """One window of a quota."""

    kind: Kind
    period: Period
    limit: Count | None = Field(description="null: no limit.")
    used: Count
    reserved: Count = Field(description="Held by running requests, beyond what is used.")
    remaining: Count | None = Field(description="What a new request may take; null: no limit.")
    resets_at: datetime


class Usage(_Form):
    """Usage of the key's own organization."""

    organization: str | None = Field(description="null: nobody asks for keys here.")
    windows: list[Window]


class Candidate(_Form):
    """A service of the model, and whether it could take the request now."""

    service: str
    eligible: bool
    reason: str | None = Field(description="Why it is not eligible; null: it is.")
    score: float | None = Field(
        description="The policy's measure, the lowest is chosen; null: not eligible."
    )


class Estimate(_Form):
    """The most that the request may cost, in tokens: what a quota would have to hold for it."""

    prompt_tokens: Count
    completion_tokens: Count


class Explanation(_Form):
    """What would happen to an inference request. Nothing was sent, and nothing reserved."""

    model: str = Field(description="The full name.")
    path: str = Field(description="As the engine knows it.")
    candidates: list[Candidate]
    choice: str | None = Field(description="Who would get it now; null: nobody, it would wait.")
    reservation: Estimate


class ErrorDetail(_Form):
    """What is wrong, and what would be right."""

    message: str
    type: str
    param: str | None = Field(description="The field of the body at fault.")
    code: str = Field(description="For programs; a promise.")


class Error(_Form):
    """An error of the router's own, in OpenAI's form."""

    error: ErrorDetail


class InferenceRequest(BaseModel):
    """The body of an inference request, as far as it is read here; it may have more fields."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, description="Full name, alias or short name.")]
    messages: list[dict[str, Any]] | None = None
    stream: bool | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
