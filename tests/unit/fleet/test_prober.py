"""Probes against a small engine on loopback, and what the fleet learns from them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from itertools import count
from time import monotonic

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from structlog.testing import capture_logs

from router.config.settings import HealthSettings
from router.fleet.model_list import parse_cards
from router.fleet.prober import Prober, fault_of, probe
from router.model import ServiceState
from unit.fleet.fleet_fakes import build, named, spec, state_of

ROW = {"id": "m", "object": "model", "max_model_len": 512, "owned_by": "vllm"}


class Engine:
    """Answers probes as a test says, and remembers them."""

    def __init__(self) -> None:
        self.health = 200
        self.models: object = {"object": "list", "data": [ROW]}
        self.models_status = 200
        self.metrics: bytes | None = b""
        self.metrics_status = 200
        self.asked: list[tuple[str, str]] = []
        self.probed = asyncio.Condition()
        self.wait: asyncio.Event | None = None
        self.url = ""
        self.instance = ""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self.probed:
            self.asked.append((request.path, request.headers.get("authorization", "")))
            self.probed.notify_all()
        if self.wait is not None:
            await self.wait.wait()
        if request.path == "/metrics":
            return self._metrics(request)
        if request.path != "/v1/models":
            return web.Response(status=self.health, headers={"x-router-instance": self.instance})
        body = self.models if isinstance(self.models, bytes) else msgspec.json.encode(self.models)
        return web.Response(status=self.models_status, body=body)

    def _metrics(self, request: web.BaseRequest) -> web.Response:
        if self.metrics is None:
            request.transport.abort()
        return web.Response(status=self.metrics_status, body=self.metrics)

    async def asked_times(self, count: int) -> None:
        async with asyncio.timeout(5), self.probed:
            await self.probed.wait_for(lambda: len(self.asked) >= count)


@pytest.fixture
async def engine():
    engine = Engine()
    server = web.Server(engine.serve)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield engine
    await runner.cleanup()


def service_of(engine: Engine, models=None, **more):
    return named(build(spec("a", models, url=engine.url, **more), healthy=False), "a")


async def seen(service, timeout_s: float = 5):
    async with aiohttp.ClientSession() as session:
        return await probe(session, service, timeout_s=timeout_s)


# -- one probe -------------------------------------------------------------------------------------


async def test_a_healthy_engine_is_ok_and_tells_its_models(engine):
    observation = await seen(service_of(engine))
    assert observation.ok
    assert [(card.id, card.max_model_len, card.row) for card in observation.cards] == [
        ("m", 512, ROW)
    ]


async def test_a_probe_asks_for_health_and_models_alone(engine):
    await seen(service_of(engine))
    assert engine.asked == [("/health", ""), ("/v1/models", "")]


async def test_a_probe_carries_the_services_key(engine):
    await seen(service_of(engine, api_key="k"))
    assert {key for _, key in engine.asked} == {"Bearer k"}


async def test_a_probe_asks_at_the_services_own_health_path(engine):
    await seen(service_of(engine, health_path="/ping"))
    assert engine.asked[0][0] == "/ping"


async def test_503_is_starting(engine):
    engine.health = 503
    observation = await seen(service_of(engine))
    assert (observation.ok, observation.starting) == (False, True)
    assert "503" in observation.error


@pytest.mark.parametrize("status", [204, 302, 401, 404, 500])
async def test_any_other_status_is_a_failure_that_is_named(engine, status):
    engine.health = status
    observation = await seen(service_of(engine))
    assert (observation.ok, observation.starting) == (False, False)
    assert str(status) in observation.error


async def test_a_refused_connection_is_starting(engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        engine.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        observation = await seen(service_of(engine))
    assert (observation.ok, observation.starting) == (False, True)
    assert "cannot connect" in observation.error


async def test_an_engine_that_speaks_no_tls_is_misconfigured_and_not_starting(engine):
    engine.url = engine.url.replace("http:", "https:")
    observation = await seen(service_of(engine))
    assert (observation.ok, observation.starting) == (False, False)
    assert observation.misconfigured
    assert observation.error.startswith("TLS fails: ")


@pytest.mark.parametrize(
    ("fault", "told"),
    [(OSError(111, "refused"), "refused"), (OSError("two of them"), "two of them")],
)
def test_why_there_is_no_connection_is_told_without_the_clients_own_words_on_tls(fault, told):
    key = ConnectionKey("engine", 8000, False, True, None, None, None)
    assert fault_of(aiohttp.ClientConnectorError(key, fault)) == told


async def test_the_router_itself_is_no_engine(engine):
    engine.instance = "me"
    async with aiohttp.ClientSession() as session:
        own = await probe(session, service_of(engine), timeout_s=5, instance="me")
        other = await probe(session, service_of(engine), timeout_s=5, instance="another")
    assert (own.ok, own.misconfigured) == (False, True)
    assert "this router itself" in own.error
    assert other.ok


async def test_an_engine_that_says_nothing_is_a_failure(engine):
    engine.wait = asyncio.Event()
    observation = await seen(service_of(engine), timeout_s=0.05)
    assert (observation.ok, observation.starting) == (False, False)
    assert "0.05 s" in observation.error
    engine.wait.set()


@pytest.mark.parametrize(("status", "models"), [(401, None), (401, ("m",)), (403, None)], ids=str)
async def test_a_wrong_key_is_a_failure_that_says_where_to_look(engine, status, models):
    engine.models_status = status
    observation = await seen(service_of(engine, models, api_key="geheim"))
    assert not observation.ok
    assert "api_key" in observation.error
    assert "geheim" not in observation.error


NOT_JSON = {"page": b"<html>", "nothing": b""}
NO_LISTS = {
    "an-array": [ROW],
    "no-list": {"models": []},
    "too-long": b'{"data":[' + b" " * (4 * 2**20) + b"]}",
    "too-deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", (NOT_JSON | NO_LISTS).values(), ids=NOT_JSON | NO_LISTS)
async def test_an_answer_that_is_no_list_of_models_is_a_failure_where_they_are_asked_for(
    engine, body
):
    engine.models = body
    observation = await seen(service_of(engine))
    assert not observation.ok
    assert "no list of models" in observation.error


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_an_answer_that_is_no_json_is_a_failure_where_models_are_configured(engine, body):
    engine.models = body
    observation = await seen(service_of(engine, ("m",)))
    assert not observation.ok
    assert "no JSON" in observation.error


@pytest.mark.parametrize("body", NO_LISTS.values(), ids=NO_LISTS)
async def test_json_that_is_no_list_is_told_and_no_failure_where_models_are_configured(
    engine, body
):
    engine.models = body
    observation = await seen(service_of(engine, ("m",)))
    assert observation.ok
    assert "no list of models" in observation.mismatch


@pytest.mark.parametrize("status", [302, 400, 403, 429, 500, 503])
async def test_a_list_that_is_not_given_is_told_and_no_failure_where_models_are_configured(
    engine, status
):
    engine.models_status = status
    observation = await seen(service_of(engine, ("m",)))
    assert observation.ok
    assert str(status) in observation.mismatch


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
async def test_a_list_that_is_not_given_is_a_failure_where_models_are_asked_for(engine, status):
    engine.models_status = status
    observation = await seen(service_of(engine))
    assert not observation.ok
    assert str(status) in observation.error


async def test_an_engine_that_lists_nothing_needs_configured_models(engine):
    engine.models = {"data": []}
    observation = await seen(service_of(engine))
    assert not observation.ok
    assert "`models`" in observation.error


async def test_a_configured_model_that_is_not_listed_is_told_and_no_failure(engine):
    observation = await seen(service_of(engine, ("m", "org/typo")))
    assert observation.ok
    assert observation.mismatch == "does not serve org/typo; it lists: m"


@pytest.mark.parametrize("models", [None, ("m",)])
async def test_models_that_are_all_listed_are_no_mismatch(engine, models):
    engine.models = {"data": [ROW, {"id": "adapter", "parent": "m"}]}
    assert (await seen(service_of(engine, models))).mismatch is None


async def test_what_an_engine_lists_is_told_within_bounds(engine):
    engine.models = {"data": [{"id": "x" * 10_000 + str(place)} for place in range(100)]}
    mismatch = (await seen(service_of(engine, ("m",)))).mismatch
    assert mismatch.endswith("and 95 more")
    assert len(mismatch) < 1000


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_engine_without_a_list_is_ok_where_models_are_configured(engine, status):
    engine.models_status = status
    observation = await seen(service_of(engine, ("m",)))
    assert observation.ok
    assert (observation.cards, observation.mismatch) == (None, None)


POISONED_LISTS = {
    "deep": b'{"data":[{"id":"m","x":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    "invalid-utf-8": b'{"data":[{"id":"m","x":"\xff"}]}',
}


@pytest.mark.parametrize("models", POISONED_LISTS.values(), ids=POISONED_LISTS)
async def test_a_list_that_cannot_be_decoded_does_not_end_the_probing(engine, models):
    engine.models = models
    assert not (await seen(service_of(engine))).ok


def test_a_row_is_kept_whole():
    (card,) = parse_cards(b'{"data":[{"id":"m","root":"/x","permission":[{"a":1}]}]}')
    assert card.row == {"id": "m", "root": "/x", "permission": [{"a": 1}]}
    assert card.max_model_len is None


@pytest.mark.parametrize(
    "row", [{"name": "x"}, {"id": 1}, {"id": None}, [], "x", None], ids=msgspec.json.encode
)
def test_a_row_that_names_no_model_is_passed_over(row):
    cards = parse_cards(msgspec.json.encode({"data": [row, ROW]}))
    assert [card.id for card in cards] == ["m"]


@pytest.mark.parametrize(
    "length", ["32768", True, 0.5, [1], {"a": 1}, 0, -1, 2**31 + 1, 10**30], ids=repr
)
def test_a_context_length_that_is_none_is_not_believed(length):
    (card,) = parse_cards(msgspec.json.encode({"data": [ROW | {"max_model_len": length}]}))
    assert card.max_model_len is None


@pytest.mark.parametrize(("parent", "length"), [("m", 512), ("other", None), (["m"], None)])
def test_an_adapter_has_its_base_models_context(parent, length):
    adapter = {"id": "adapter", "parent": parent}
    _, card = parse_cards(msgspec.json.encode({"data": [ROW, adapter]}))
    assert card.max_model_len == length


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":1}', b"<html>"])
def test_what_is_no_model_list_is_said_so(body):
    with pytest.raises(msgspec.MsgspecError):
        list(parse_cards(body))


# -- the loops -------------------------------------------------------------------------------------


@asynccontextmanager
async def probing(fleet, clock=monotonic, **settings):
    """A prober at work; by default its second probe is far away."""
    settings = {"interval_s": 3600, "timeout_s": 5} | settings
    prober = Prober(fleet, lambda: HealthSettings(**settings), clock=clock)
    await prober.start()
    try:
        yield prober
    finally:
        await prober.stop()


@pytest.fixture
def brisk(monkeypatch) -> float:
    """Seconds that probes keep between them, so few that nobody waits for them."""
    distance_s = 0.05
    monkeypatch.setattr("router.fleet.health._DOUBT_INTERVAL_S", distance_s)
    return distance_s


async def until(condition) -> None:
    """Let the loops run until `condition()`; it is looked at again at every turn of the loop."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_service_becomes_healthy_and_its_models_are_learnt(engine):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet):
        await until(lambda: named(fleet, "a").is_healthy)
    assert list(fleet.catalog.members) == ["m"]


async def test_models_are_learnt_anew_at_each_probe(engine, brisk):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet) as prober:
        await until(lambda: "m" in fleet.catalog.members)
        engine.models = {"data": [{"id": "other"}]}
        prober.suspect(named(fleet, "a"))
        await until(lambda: "other" in fleet.catalog.members)
    assert "m" not in fleet.catalog.members


async def test_a_list_that_is_not_given_is_told_once_and_the_service_used(engine):
    engine.models_status = 429
    fleet = build(spec("a", ("m",), url=engine.url), healthy=False)
    with capture_logs() as lines:
        async with probing(fleet, interval_s=0.001):
            await engine.asked_times(8)
            service = named(fleet, "a")
            assert service.is_healthy
            assert "429" in service.last_error
    assert sum(line["event"] == "models_differ" for line in lines) == 1


async def test_models_that_were_learnt_are_kept_while_none_are_listed(engine, brisk):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet, unhealthy_after=2) as prober:
        await until(lambda: named(fleet, "a").is_healthy)
        engine.models = {"data": []}
        prober.suspect(named(fleet, "a"))
        await until(lambda: named(fleet, "a").health.failures)
    assert list(fleet.catalog.members) == ["m"]


async def test_a_suspect_is_probed_before_its_time(engine, brisk):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet, unhealthy_after=1) as prober:
        await until(lambda: named(fleet, "a").is_healthy)
        engine.health = 500
        prober.suspect(named(fleet, "a"))
        await until(lambda: not named(fleet, "a").is_healthy)
    assert "500" in named(fleet, "a").health.last_error


async def test_a_suspicion_during_a_probe_leads_to_another(engine, brisk):
    engine.wait = asyncio.Event()
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet) as prober:
        await engine.asked_times(1)
        prober.suspect(named(fleet, "a"))
        engine.wait.set()
        await engine.asked_times(4)
    assert [path for path, _ in engine.asked] == ["/health", "/v1/models"] * 2


async def test_probes_of_a_suspect_keep_their_distance(engine, brisk):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    service = named(fleet, "a")

    def failed(times: int) -> bool:
        prober.suspect(service)  # requests fail all the time
        return service.health.failures >= times

    async with probing(fleet, unhealthy_after=3) as prober:
        await until(lambda: service.is_healthy)
        engine.health = 500
        await until(lambda: failed(1))
        began = monotonic()
        await until(lambda: failed(3))
        assert monotonic() - began >= 2 * 0.9 * brisk * 0.9


async def test_one_that_fell_is_soon_back_although_nobody_suspects_it(engine, brisk):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    service = named(fleet, "a")
    async with probing(fleet, unhealthy_after=2) as prober:
        await until(lambda: service.is_healthy)
        engine.health = 500
        prober.suspect(service)
        await until(lambda: service.health.state is ServiceState.UNHEALTHY)
        engine.health = 200
        await until(lambda: service.is_healthy)


async def test_a_service_that_is_added_is_probed_and_one_that_is_gone_is_not(engine):
    fleet = build(healthy=False)
    async with probing(fleet) as prober:
        fleet.publish("yaml", [spec("a", None, url=engine.url)])
        await until(lambda: named(fleet, "a").is_healthy)
        service = named(fleet, "a")
        fleet.publish("yaml", [])
        prober.suspect(service)
        assert prober._tasks == {}
        assert prober._hurry == {}


async def test_a_failing_service_falls_after_so_many_probes(engine):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet, interval_s=0.01, timeout_s=1, unhealthy_after=3):
        await until(lambda: named(fleet, "a").is_healthy)
        engine.health = 500
        await until(lambda: named(fleet, "a").health.failures >= 3)
        assert not named(fleet, "a").is_healthy
        engine.health = 200
        await until(lambda: named(fleet, "a").is_healthy)


async def test_after_stop_nothing_is_probed(engine):
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet) as prober:
        await until(lambda: named(fleet, "a").is_healthy)
    before = len(engine.asked)
    prober.suspect(named(fleet, "a"))
    await asyncio.sleep(0)
    assert len(engine.asked) == before


async def test_an_engine_that_is_away_for_long_is_told_once(engine):
    engine.health = 503
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    with capture_logs() as lines:
        async with probing(fleet, clock=count(0, 20).__next__, interval_s=0.001):
            await engine.asked_times(6)
    (told,) = [line for line in lines if line["event"] == "service_absent"]
    assert (told["service"], told["url"], told["log_level"]) == ("a", engine.url, "warning")
    assert "503" in told["error"]


async def test_an_engine_that_went_away_again_is_told_again(engine):
    engine.health = 503
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    with capture_logs() as lines:

        def told() -> int:
            return sum(line["event"] == "service_absent" for line in lines)

        async with probing(fleet, clock=count(0, 20).__next__, interval_s=0.001):
            await until(lambda: told() == 1)
            engine.health = 200
            await until(lambda: named(fleet, "a").is_healthy)
            engine.health = 503
            await until(lambda: told() == 2)


# -- what /metrics tells ---------------------------------------------------------------------------

RUNNING = b"vllm:num_requests_running 0\n"
ASLEEP = RUNNING + b'vllm:engine_sleep_state{sleep_state="awake"} 0\n'


@asynccontextmanager
async def asleep(engine):
    """A service that is asleep by its own word, and read again all the time."""
    engine.metrics = ASLEEP
    fleet = build(spec("a", None, url=engine.url), healthy=False)
    async with probing(fleet, metrics_interval_s=0.001):
        await until(lambda: state_of(named(fleet, "a")) == "sleeping")
        yield named(fleet, "a")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, RUNNING), (200, b""), (200, b"process_cpu_seconds_total 1\n"), (404, b""), (501, b"")],
)
async def test_an_engine_whose_metrics_no_longer_say_so_sleeps_no_more(engine, status, body):
    async with asleep(engine) as service:
        engine.metrics_status, engine.metrics = status, body
        await until(lambda: state_of(service) == "healthy")


@pytest.mark.parametrize(("status", "body"), [(500, b""), (503, RUNNING), (200, None)])
async def test_an_engine_whose_metrics_cannot_be_had_sleeps_on(engine, status, body):
    async with asleep(engine) as service:
        engine.metrics_status, engine.metrics = status, body
        await engine.asked_times(len(engine.asked) + 4)
        assert state_of(service) == "sleeping"
