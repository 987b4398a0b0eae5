"""Explaining a request: who could take it, who would, why the others not, and what it may cost."""

from __future__ import annotations

import asyncio
import json
from time import monotonic

import pytest

from router.api.explain import ExplainPages
from router.errors import ModelNotFound
from router.fleet.breaker import Breaker
from router.fleet.load import EngineLoad
from router.fleet.service import Health
from router.fleet.waiting import Ticket
from router.model import ServiceState
from router.openai.cost import Cost
from unit.api.asking import asking
from unit.fleet.fleet_fakes import UNHEALTHY, build, named, spec


def explain(fleet, *, policy="round_robin", path="/explain", weighed=None) -> dict:
    """The page for a request for the model `m`."""

    def weigh(asked: str, _request):
        if weighed is not None:
            weighed.append(asked)
        return "m", asked, Cost(70, 30)

    answer = ExplainPages(fleet, lambda: policy, weigh).explain(asking(path))
    return json.loads(answer.body)


def row(page: dict, name: str) -> dict:
    (found,) = (each for each in page["candidates"] if each["service"] == name)
    return found


def reason(fleet, name: str = "a") -> str:
    found = row(explain(fleet), name)
    assert (found["eligible"], found["score"]) == (False, None)
    return found["reason"]


def two():
    return build(spec("a", max_concurrency=1), spec("b"))


def test_the_choice_is_the_one_that_the_next_request_gets():
    fleet = two()
    for _ in range(4):
        choice = explain(fleet)["choice"]
        lease = fleet.take("m")
        assert lease.service.name == choice
        lease.release()


def test_it_takes_no_slot_and_no_turn():
    fleet = two()
    assert {explain(fleet)["choice"] for _ in range(5)} == {"a"}
    assert [service.in_flight for service in fleet.services] == [0, 0]


def test_an_eligible_candidate_has_a_score_and_no_reason():
    assert row(explain(two()), "b") == {
        "service": "b", "eligible": True, "reason": None, "score": 1.0,
    }  # fmt: skip


def test_the_score_is_the_policys_measure():
    fleet = two()
    named(fleet, "b").in_flight = 3
    assert row(explain(fleet, policy="least_load"), "b")["score"] == 3.0


def test_it_tells_the_model_the_path_and_the_most_it_may_cost():
    page = explain(two())
    assert (page["model"], page["path"]) == ("m", "/v1/chat/completions")
    assert page["reservation"] == {"prompt_tokens": 70, "completion_tokens": 30}


def test_the_path_is_taken_from_the_query():
    weighed: list[str] = []
    explain(two(), path="/explain?path=%2Fv1%2Fembeddings&x=1", weighed=weighed)
    assert weighed == ["/v1/embeddings"]


def test_what_the_request_would_be_refused_with_is_the_answer():
    def weigh(*_):
        raise ModelNotFound("no")

    page = ExplainPages(two(), lambda: "round_robin", weigh)
    with pytest.raises(ModelNotFound):
        page.explain(asking())


def test_full():
    fleet = two()
    named(fleet, "a").in_flight = 1
    assert reason(fleet) == "full: 1 of 1 requests"


def test_unhealthy_with_its_error():
    fleet = two()
    fleet.set_health(named(fleet, "a"), Health(ServiceState.UNHEALTHY, 3, last_error="refused"))
    assert reason(fleet) == "unhealthy: refused"


def test_loading():
    fleet = build(spec("a"), healthy=False)
    assert reason(fleet) == "loading"


def test_sleeping():
    fleet = two()
    fleet.set_load(named(fleet, "a"), EngineLoad(awake=False), 30)
    assert reason(fleet) == "sleeping"


def test_hung():
    fleet = two()
    service = named(fleet, "a")
    fleet.set_load(service, EngineLoad(running=2), 0)
    fleet.set_load(service, EngineLoad(running=2), 0)
    assert reason(fleet).startswith("hung: 2 running")


def test_ejected_for_how_long():
    fleet = two()
    named(fleet, "a").breaker = Breaker(3, 1, monotonic() + 59.9)
    assert reason(fleet) == "ejected for another 60 s"


def test_ejected_with_its_trial_under_way():
    fleet = two()
    named(fleet, "a").breaker = Breaker(3, 1, monotonic() - 1, trial=True)
    assert reason(fleet) == "ejected: one request is on trial"


def test_draining():
    fleet = two()
    lease = next(each for each in (fleet.take("m"), fleet.take("m")) if each.service.name == "a")
    fleet.publish("yaml", [spec("b")])
    assert reason(fleet) == "draining"
    lease.release()


def test_the_last_ones_standing_are_eligible_although_ejected():
    fleet = build(spec("a"))
    named(fleet, "a").breaker = Breaker(3, 1, monotonic() + 60)
    assert explain(fleet)["choice"] == "a"


def test_where_nobody_can_take_it_there_is_no_choice():
    fleet = two()
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    page = explain(fleet)
    assert page["choice"] is None
    assert [each["eligible"] for each in page["candidates"]] == [False, False]


async def test_while_others_wait_a_new_request_would_wait_too():
    fleet = build(spec("a", max_concurrency=1), spec("b", max_concurrency=1))
    first, second = fleet.take("m"), fleet.take("m")
    here, there = (each.service for each in (first, second))
    ticket = Ticket("", 0, 1, monotonic() + 60, (there,))
    waiting = asyncio.create_task(fleet.wait("m", ticket, 8))
    await asyncio.sleep(0)
    second.release()  # of no use to who waits: its request has failed there
    assert reason(fleet, there.name).startswith("waiting: ")
    assert reason(fleet, here.name) == "full: 1 of 1 requests"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
