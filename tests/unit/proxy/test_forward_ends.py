"""What ends a call without moving it, and that all it took is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from router.errors import Draining, GatewayTimeout, ModelLoading, Overloaded
from router.fleet.lease import Lease
from router.fleet.service import Health
from router.model import ServiceSpec
from router.proxy.relay import Relay
from unit.proxy.forward_fakes import (
    House,
    Play,
    Pool,
    answers,
    breaks,
    head,
    refuses,
    running,
    says_nothing,
)

# -- not moving ------------------------------------------------------------------------------------


async def test_no_first_byte_in_time_is_a_gateway_timeout_and_does_not_move():
    house = House(Pool(says_nothing), Pool())
    task, relay = await running(house)
    relay.check(house.call.started + 301)
    with pytest.raises(GatewayTimeout):
        await task
    assert (house.tried, house.suspects) == (["a"], ["a"])
    assert house.pools["a"].opened[0].aborted
    house.assert_nothing_is_held()


async def test_a_shutdown_before_the_first_byte_is_draining():
    house = House(Pool(says_nothing), Pool())
    task, relay = await running(house)
    relay.shut_down()
    with pytest.raises(Draining):
        await task
    house.assert_nothing_is_held()


async def test_after_a_shutdown_no_engine_is_asked():
    house = House(Pool(answers(200)), Pool())
    house.forwarder.shut_down()
    with pytest.raises(Draining):
        await house.forward()
    assert house.tried == []
    house.assert_nothing_is_held()


async def one_in_line() -> tuple[House, Lease, asyncio.Task[None]]:
    """The only slot is leased, and a call waits for it."""
    house = House(Pool(answers(200)))
    house.max_queue = 1
    house.fleet.publish("yaml", [ServiceSpec("a", "http://a", "yaml", ("m",), max_concurrency=1)])
    lease = house.fleet.take("m")
    task = asyncio.create_task(house.forward())
    while not house.fleet.queued:
        await asyncio.sleep(0)
    return house, lease, task


async def test_who_waited_until_its_time_was_over_is_told_so_and_sent_to_nobody():
    house, lease, task = await one_in_line()
    house.call.started -= 301
    lease.release()
    with pytest.raises(GatewayTimeout):
        await task
    assert house.tried == []
    house.assert_nothing_is_held()


async def test_a_moved_call_whose_time_is_over_in_line_gets_the_last_answer_of_an_engine():
    house = House(Pool(answers(500)), Pool())
    house.max_queue = 1
    b = ServiceSpec("b", "http://b", "yaml", ("m",), max_concurrency=1)
    house.fleet.publish("yaml", [ServiceSpec("a", "http://a", "yaml", ("m",)), b])
    lease = house.fleet.take("m", [house.fleet.services[0]])
    task = asyncio.create_task(house.forward())
    while not house.fleet.queued:
        await asyncio.sleep(0)
    house.call.started -= 301
    lease.release()
    await task
    assert house.exchange.status == 500
    assert house.tried == ["a"]
    house.assert_nothing_is_held()


async def test_who_waits_for_a_slot_at_a_shutdown_gets_none():
    house, lease, task = await one_in_line()
    house.forwarder.shut_down()
    lease.release()
    with pytest.raises(Draining):
        await task
    assert house.tried == []
    house.assert_nothing_is_held()


async def test_a_slot_that_came_just_before_a_shutdown_is_given_back():
    house, lease, task = await one_in_line()
    lease.release()
    house.forwarder.shut_down()
    with pytest.raises(Draining):
        await task
    assert house.tried == []
    house.assert_nothing_is_held()


async def test_nothing_healthy_is_told_as_it_is():
    house = House(Pool())
    house.fleet.set_health(house.fleet.services[0], Health())
    with pytest.raises(ModelLoading):
        await house.forward()


async def test_all_full_is_told_as_it_is():
    house = House(Pool())
    house.fleet.publish("yaml", [ServiceSpec("a", "http://a", "yaml", ("m",), max_concurrency=1)])
    lease = house.fleet.take("m")
    with pytest.raises(Overloaded):
        await house.forward()
    lease.release()
    house.assert_nothing_is_held()


async def ended_while_connecting(end: Callable[[Relay], None], play: Play) -> House:
    house = House(Pool(play), Pool(answers(200)))
    house.pools["a"].gate = asyncio.Event()
    task = asyncio.create_task(house.forward())
    await house.pools["a"].connecting.wait()
    (relay,) = house.forwarder.running
    end(relay)
    house.pools["a"].gate.set()
    await asyncio.wait([task])
    house.task = task
    return house


ENDS = {
    "timeout": (lambda relay: relay.check(relay._call.started + 301), GatewayTimeout),
    "shutdown": (lambda relay: relay.shut_down(), Draining),
}


@pytest.mark.parametrize(("end", "error"), ENDS.values(), ids=ENDS)
async def test_an_end_while_connecting_counts_although_the_connection_comes(end, error):
    house = await ended_while_connecting(end, says_nothing)
    assert isinstance(house.task.exception(), error)
    assert house.pools["a"].opened[0].aborted
    house.assert_nothing_is_held()


@pytest.mark.parametrize(("end", "error"), ENDS.values(), ids=ENDS)
async def test_an_end_while_connecting_counts_although_the_connection_is_refused(end, error):
    house = await ended_while_connecting(end, refuses)
    assert isinstance(house.task.exception(), error)
    assert house.tried == ["a"]


# -- giving back -----------------------------------------------------------------------------------


async def test_a_client_that_leaves_while_connecting_leaves_nothing_behind():
    house = House(Pool(says_nothing))
    house.pools["a"].gate = asyncio.Event()
    task = asyncio.create_task(house.forward())
    await house.pools["a"].connecting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    house.assert_nothing_is_held()


PLAYS = {
    "before-the-head": says_nothing,
    "before-the-body": lambda relay: relay.on_head(head(200)),
    "mid-answer": lambda relay: (
        relay.on_head(head(200)), relay.on_data(b"{"),
    ),
    "in-a-5xx": lambda relay: (
        relay.on_head(head(500)), relay.on_data(b"{"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("play", PLAYS.values(), ids=PLAYS)
async def test_a_client_that_leaves_leaves_nothing_behind(play, reused):
    house = House(Pool(idle=play) if reused else Pool(play), Pool())
    task, _ = await running(house)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert house.pools["a"].opened[0].aborted
    assert house.tried == ["a"]
    assert house.suspects == []
    house.assert_nothing_is_held()
    assert house.fleet.services[0].cells.client_aborts == 1
    assert house.suspects == []


async def test_a_client_that_leaves_at_any_turn_of_the_loop_leaves_nothing_behind():
    """Cancelled after 1, 2, 3, ... turns, through a stale connection and two moves."""
    finished = False
    turns = 1
    while not finished:
        house = House(Pool(breaks, idle=breaks), Pool(answers(500)), Pool(answers(200)))
        task = asyncio.create_task(house.forward())
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        house.assert_nothing_is_held()
        turns += 1
    assert turns > 5


async def test_every_attempt_is_counted_at_its_own_service():
    house = House(Pool(refuses), Pool(answers(500)), Pool(answers(200)))
    await house.forward()
    house.fleet._metrics.fold()
    requests = [dict(service.cells.requests) for service in house.fleet.services]
    assert requests == [
        {("chat", "none"): 1}, {("chat", "5xx"): 1}, {("chat", "2xx"): 1},
    ]  # fmt: skip
    assert [dict(s.cells.errors) for s in house.fleet.services] == [
        {"connect": 1}, {"status_5xx": 1}, {},
    ]  # fmt: skip
