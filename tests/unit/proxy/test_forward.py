"""Attempts and failover: where a call moves, where it does not, and that all is given back."""

from __future__ import annotations

import pytest

from router.errors import BadGateway
from unit.proxy.forward_fakes import (
    House,
    Pool,
    answers,
    breaks,
    breaks_after_a_byte,
    breaks_after_head,
    refuses,
)

# -- moving ----------------------------------------------------------------------------------------


async def test_a_call_is_answered_by_the_first_that_can():
    house = House(Pool(answers(200)), Pool())
    await house.forward()
    assert (house.exchange.status, house.tried, house.suspects) == (200, ["a"], [])
    house.assert_nothing_is_held()


MOVING = {
    "refused": refuses, "broken": breaks, "broken-after-head": breaks_after_head,
    "500": answers(500), "503": answers(503),
}  # fmt: skip


@pytest.mark.parametrize("play", MOVING.values(), ids=MOVING)
async def test_a_failure_before_the_first_byte_moves_the_call(play):
    house = House(Pool(play), Pool(answers(200, b"[1]")))
    await house.forward()
    assert (house.exchange.status, house.exchange.body, house.tried) == (200, b"[1]", ["a", "b"])
    assert house.suspects == ["a"]
    house.assert_nothing_is_held()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
async def test_a_4xx_is_passed_on_and_does_not_move(status):
    house = House(Pool(answers(status)), Pool())
    await house.forward()
    assert (house.exchange.status, house.tried, house.suspects) == (status, ["a"], [])


async def test_nothing_moves_after_the_first_byte():
    house = House(Pool(breaks_after_a_byte), Pool())
    await house.forward()
    assert (house.exchange.body, house.exchange.ends, house.tried) == (b"{", ["cut"], ["a"])
    house.assert_nothing_is_held()


async def test_a_call_moves_twice_and_no_more():
    house = House(*(Pool(breaks) for _ in range(5)))
    with pytest.raises(BadGateway):
        await house.forward()
    assert house.tried == ["a", "b", "c"]
    house.assert_nothing_is_held()


async def test_no_service_is_tried_twice():
    house = House(Pool(breaks, answers(200)))
    with pytest.raises(BadGateway) as caught:
        await house.forward()
    assert house.tried == ["a"]
    assert "closed by the engine" in caught.value.message


async def test_the_last_answer_a_backend_gave_is_passed_on_as_it_is():
    house = House(Pool(answers(500, b"one")), Pool(answers(503, b"two")), Pool(refuses))
    await house.forward()
    assert (house.exchange.status, house.exchange.body) == (503, b"two")
    assert b"x-router-service: b" in house.exchange.lines
    house.assert_nothing_is_held()


async def test_the_only_services_5xx_is_passed_on_as_it_is():
    house = House(Pool(answers(500, b"oops")))
    await house.forward()
    assert (house.exchange.status, house.exchange.body) == (500, b"oops")


async def test_the_third_5xx_is_passed_on():
    house = House(*(Pool(answers(500, body)) for body in (b"1", b"2", b"3")), Pool())
    await house.forward()
    assert (house.exchange.body, house.tried) == (b"3", ["a", "b", "c"])


async def test_moves_are_counted_as_retries():
    house = House(Pool(breaks), Pool(refuses), Pool(answers(200)))
    await house.forward()
    assert [dict(s.cells.retries) for s in house.fleet.services] == [
        {"disconnect": 1}, {"connect": 1}, {},
    ]  # fmt: skip


async def test_a_call_that_could_not_move_counts_no_retry():
    house = House(Pool(breaks))
    with pytest.raises(BadGateway):
        await house.forward()
    assert dict(house.fleet.services[0].cells.retries) == {}


# -- charging --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plays", "charged"),
    [
        ([answers(200)], "a"),
        ([breaks, answers(200)], "b"),
        ([answers(500), answers(200)], "b"),
        ([breaks_after_a_byte], "a"),
        ([answers(500), refuses], "a"),
    ],
)
async def test_the_answer_that_the_client_got_is_charged_once(plays, charged):
    house = House(*(Pool(play) for play in plays))
    await house.forward()
    assert house.meter.charged == [charged]


async def test_nothing_is_charged_where_no_engine_answered():
    house = House(Pool(breaks))
    with pytest.raises(BadGateway):
        await house.forward()
    assert house.meter.charged == [None]


# -- connections -----------------------------------------------------------------------------------


async def test_an_idle_connection_is_used_first():
    house = House(Pool(idle=answers(200)))
    await house.forward()
    assert [connection.reused for connection in house.pools["a"].opened] == [True]


async def test_a_stale_connection_is_tried_again_on_a_fresh_one_free_of_charge():
    house = House(Pool(answers(200), idle=breaks), Pool())
    await house.forward()
    assert [connection.reused for connection in house.pools["a"].opened] == [True, False]
    assert (house.exchange.status, house.tried, house.suspects) == (200, ["a"], [])
    assert not house.fleet.services[0].cells.retries


async def test_a_fresh_connection_after_a_stale_one_may_fail_like_any_other():
    house = House(Pool(breaks, idle=breaks), Pool(answers(200)))
    await house.forward()
    assert house.tried == ["a", "b"]


async def test_a_reused_connection_that_breaks_after_its_head_is_a_failure():
    house = House(Pool(answers(200), idle=breaks_after_head), Pool(answers(201)))
    await house.forward()
    assert (house.exchange.status, house.tried) == (201, ["a", "b"])
