"""When all slots are taken: who waits, for how long, who is next, and who is told to come again."""

from __future__ import annotations

import asyncio
import time

import pytest

from e2e.quota.organization import organization, sha256
from e2e.resilience.crowd import PATH, Told, ask, many, until
from support.daemon import service
from support.http import Client, chat, encode
from support.upstream import Gate, Pause, ScriptedUpstream, Send
from support.wire import Request, answer, chat_answer

KEYS = {name: f"sk-{name}-0123456789abcdefghijklmnopqrstuv" for name in ("many", "one", "first")}
SERVED_S = 0.03
MODEL_QUEUE = "router_queue_length"


def bearer(name: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {KEYS[name]}")


def narrow(url: str, slots: int = 1, **limits) -> dict:
    """One service with so many slots."""
    return {"services": [service("a", url, "tiny", max_concurrency=slots)], "limits": limits}


def users(requests: list[Request]) -> list[str]:
    """Whose requests the engine read, in order."""
    return [request.json["user"] for request in requests]


class Line:
    """A service whose one slot is held until the test lets it go, and those who wait for it."""

    def __init__(self, router, upstream: ScriptedUpstream) -> None:
        self.router = router
        self.upstream = upstream
        self._gate = Gate()
        self._waiting: list[asyncio.Task[Told]] = []
        upstream.script = self._script

    def _script(self, request: Request):
        held = [self._gate] if request.json["user"] == "holder" else [Pause(SERVED_S)]
        return [*held, Send(chat_answer())]

    async def hold(self, *headers: tuple[str, str]) -> None:
        """Take the slot."""
        self.join("holder", *headers)
        await asyncio.to_thread(self._gate.reached.wait, 10)

    def join(self, user: str, *headers: tuple[str, str], **more) -> asyncio.Task[Told]:
        """Ask for an answer, on a connection of its own."""
        task = asyncio.create_task(ask(self.router.port, chat(user=user, **more), *headers))
        self._waiting.append(task)
        return task

    async def until_waiting(self, count: int) -> None:
        await until(lambda: self.router.metric(MODEL_QUEUE) == count)

    async def let_go(self) -> list[Told]:
        """Free the slot; what everybody was told."""
        self._gate.open()
        return list(await asyncio.gather(*self._waiting))


@pytest.fixture
async def line(start_daemon, start_upstream):
    async def start(slots: int = 1, *, organizations: list | None = None, **limits) -> Line:
        upstream = start_upstream()
        config = narrow(upstream.url, slots, **{"max_queue": 256, "queue_timeout_s": 20, **limits})
        if organizations:
            config["organizations"] = organizations
        return Line(await asyncio.to_thread(start_daemon, config), upstream)

    return start


# -- how many --------------------------------------------------------------------------------------


async def test_20_requests_at_three_slots_and_five_places_are_8_answers_and_12_refusals(
    start_daemon, start_upstream, finding
):
    gate = Gate()
    upstream = start_upstream(lambda _: [gate, Pause(SERVED_S), Send(chat_answer())])
    config = narrow(upstream.url, 3, max_queue=5)
    router = await asyncio.to_thread(start_daemon, config)
    asking = asyncio.create_task(many(20, lambda n: ask(router.port, chat(user=str(n)))))
    await until(lambda: router.metric("router_rejections_total", code="overloaded") == 12)
    assert router.metric(MODEL_QUEUE) == 5
    assert len(upstream.requests) == 3
    gate.open()
    told: list[Told] = await asking
    assert sorted(each.status for each in told) == [200] * 8 + [503] * 12
    for each in told:
        if each.status == 503:
            assert each.code == "overloaded"
            assert int(each.retry_after) >= 1
    starts = sorted(request.at for request in upstream.requests)
    at_once = max(sum(at <= other < at + SERVED_S for other in starts[3:]) for at in starts[3:])
    finding(f"20 requests at 3 slots and 5 places: 8 answers, 12 x 503, at once {max(3, at_once)}")
    assert at_once <= 3
    await asyncio.to_thread(router.until_idle)
    assert router.metric(MODEL_QUEUE) == 0


async def test_a_wait_ends_at_the_queues_time_limit_with_503_and_the_engine_never_sees_it(line):
    queue = await line(queue_timeout_s=0.3)
    await queue.hold()
    late = await queue.join("late")
    assert (late.status, late.code) == (503, "overloaded")
    assert int(late.retry_after) >= 1
    assert 0.25 <= late.ended_at - late.sent_at < 5
    assert queue.router.metric(MODEL_QUEUE) == 0
    await queue.let_go()
    assert users(queue.upstream.requests) == ["holder"]


async def test_no_queue_means_503_at_once(line):
    queue = await line(max_queue=0)
    await queue.hold()
    assert (await queue.join("late")).code == "overloaded"
    await queue.let_go()


# -- who is next -----------------------------------------------------------------------------------


def two_organizations() -> list[dict]:
    return [organization(name, KEYS[name], daily_tokens=10**9) for name in ("many", "one")]


@pytest.mark.parametrize("length", [10, 2000], ids=["short", "long"])
async def test_one_request_waits_a_turn_although_another_organization_has_50_in_line(
    line, finding, length
):
    queue = await line(organizations=two_organizations())
    await queue.hold(bearer("many"))
    for number in range(50):
        queue.join(f"many-{number}", bearer("many"), max_tokens=length)
    await queue.until_waiting(50)
    queue.join("one", bearer("one"), max_tokens=length)
    await queue.until_waiting(51)
    told = await queue.let_go()
    assert {each.status for each in told} == {200}
    before = users(queue.upstream.requests).index("one") - 1
    finding(f"one request ({length} tokens) beside 50 of another's: {before} served before it")
    assert before <= 2


async def test_dear_requests_take_fewer_turns_than_cheap_ones(line):
    """By tokens: the cheap organization gets more of its requests through than the dear one."""
    queue = await line(organizations=two_organizations())
    await queue.hold(bearer("many"))
    for number in range(20):
        queue.join(f"many-{number}", bearer("many"), max_tokens=20)
    for number in range(5):
        queue.join(f"one-{number}", bearer("one"), max_tokens=4000)
    await queue.until_waiting(25)
    await queue.let_go()
    order = users(queue.upstream.requests)[1:]
    third_dear = [n for n, user in enumerate(order) if user.startswith("one")][2]
    assert sum(user.startswith("many") for user in order[:third_dear]) > 2


async def test_within_an_organization_first_come_is_first_served(line):
    queue = await line()
    await queue.hold()
    for number in range(10):
        queue.join(str(number))
        await queue.until_waiting(number + 1)
    await queue.let_go()
    assert users(queue.upstream.requests) == ["holder", *map(str, range(10))]


async def test_a_key_with_priority_goes_first(line):
    row = organization("many", KEYS["many"])
    row["keys"].append({"id": "urgent", "sha256": sha256(KEYS["first"]), "priority": 10})
    queue = await line(organizations=[row])
    await queue.hold(bearer("many"))
    for number in range(5):
        queue.join(f"many-{number}", bearer("many"))
    await queue.until_waiting(5)
    queue.join("urgent", bearer("first"))
    await queue.until_waiting(6)
    await queue.let_go()
    assert users(queue.upstream.requests)[1] == "urgent"


# -- leaving, and coming up ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_client_that_leaves_gives_its_place_up_at_once_and_no_engine_sees_it(line, how):
    queue = await line(max_queue=1)
    await queue.hold()
    client = await asyncio.to_thread(Client, queue.router.port)
    client.send(encode("POST", PATH, chat(user="leaves")))
    await queue.until_waiting(1)
    assert (await queue.join("too-many")).status == 503
    (client.close if how == "fin" else client.reset)()
    gone_at = time.monotonic()
    given_up_at = await until(lambda: queue.router.metric(MODEL_QUEUE) == 0)
    assert given_up_at - gone_at < 2
    queue.join("in-its-place")
    await queue.until_waiting(1)
    await queue.let_go()
    assert users(queue.upstream.requests) == ["holder", "in-its-place"]
    await asyncio.to_thread(queue.router.until_idle)


async def test_whoever_leaves_in_the_moment_a_slot_comes_free_harms_nobody(line):
    """Fifty leave at once while the slot is given back again and again."""
    queue = await line()
    await queue.hold()
    leaving = [await asyncio.to_thread(Client, queue.router.port) for _ in range(50)]
    for number, client in enumerate(leaving):
        client.send(encode("POST", PATH, chat(user=f"leaves-{number}")))
        if number % 5 == 0:
            queue.join(f"stays-{number}")
    await queue.until_waiting(60)
    freed = asyncio.create_task(queue.let_go())
    for client in leaving:
        client.reset()
        await asyncio.sleep(0.002)
    assert {each.status for each in await freed} == {200}
    await asyncio.to_thread(queue.router.until_idle)
    assert queue.router.metric(MODEL_QUEUE) == 0
    assert "Traceback" not in queue.router.log


async def test_a_service_that_becomes_healthy_serves_the_queue(start_daemon, start_upstream, quick):
    gate = Gate()
    full, late = start_upstream(lambda _: [gate, Send(chat_answer())]), start_upstream()
    late.probe = lambda _: [Send(answer({"detail": "starting"}, 503))]
    rows = [service("full", full.url, "tiny", max_concurrency=1), service("late", late.url, "tiny")]
    router = await asyncio.to_thread(start_daemon, {**quick, "services": rows}, healthy=1)
    holder = asyncio.create_task(ask(router.port, chat(user="holder")))
    await asyncio.to_thread(gate.reached.wait, 10)
    waiting = [asyncio.create_task(ask(router.port, chat(user=str(n)))) for n in range(5)]
    await until(lambda: router.metric(MODEL_QUEUE) == 5)
    late.probe = start_upstream().probe
    told = await asyncio.gather(*waiting)
    assert {(each.status, each.service) for each in told} == {(200, "late")}
    gate.open()
    assert (await holder).service == "full"


async def test_whoever_waits_for_a_model_that_a_reload_removes_is_told(line, start_upstream):
    queue = await line()
    rows = [service("b", start_upstream().url, "other")]
    await queue.hold()
    waiting = [queue.join(str(number)) for number in range(3)]
    await queue.until_waiting(3)
    await asyncio.to_thread(queue.router.write, {"services": rows})
    told = await asyncio.gather(*waiting)
    assert {(each.status, each.code) for each in told} == {(503, "no_healthy_backend")}
    assert {each.status for each in await queue.let_go()} == {200, 503}
    assert queue.router.get("/health").json["generation"] == 2
