"""Waiting for a slot: who gets it, and that none is lost or handed out twice, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.errors import Draining, ModelLoading, NoHealthyBackend, Overloaded, RouterError
from router.fleet.fleet import Fleet
from router.fleet.lease import Lease
from router.fleet.waiting import QUANTUM_TOKENS, Ticket
from unit.fleet.fleet_fakes import HEALTHY, UNHEALTHY, build, card, named, spec

MOST = 16 * QUANTUM_TOKENS
NEVER = 1e18


def ticket(organization="o", cost=1, *, priority=0, deadline=NEVER, exclude=()) -> Ticket:
    return Ticket(organization, cost, priority, deadline, exclude)


def waiting(fleet: Fleet, waits: Ticket | None = None, max_queue=1000) -> asyncio.Task[Lease]:
    return asyncio.create_task(fleet.wait("m", waits or ticket(), max_queue))


async def turn() -> None:
    """Let everything that can go on do so; no time passes."""
    for _ in range(4):
        await asyncio.sleep(0)


async def full(*tickets: Ticket, slots=1) -> tuple[Fleet, list[Lease], list[asyncio.Task[Lease]]]:
    """One service, all its slots out, and these tickets in line."""
    fleet = build(spec("a", max_concurrency=slots))
    leases = [fleet.take("m") for _ in range(slots)]
    tasks = [waiting(fleet, each) for each in tickets]
    await turn()
    return fleet, leases, tasks


async def test_whoever_waits_gets_the_slot_that_comes_back():
    fleet, (lease,), (task,) = await full(ticket())
    assert not task.done()
    lease.release()
    assert (await task).service.in_flight == 1
    assert fleet.queued == {}


async def test_a_slot_that_comes_back_is_not_for_newcomers():
    fleet, (lease,), _ = await full(ticket(), ticket())
    lease.release()
    with pytest.raises(Overloaded):
        fleet.take("m")


async def test_nobody_waits_beyond_the_bound():
    fleet, _, _ = await full(ticket(), ticket())
    with pytest.raises(Overloaded, match="2 requests wait"):
        await fleet.wait("m", ticket(), 2)
    assert fleet.queued == {"m": 2}


async def test_the_first_wait_of_all_is_refused_where_no_queue_is_allowed():
    fleet, _, _ = await full()
    with pytest.raises(Overloaded):
        await fleet.wait("m", ticket(), 0)
    assert fleet.queued == {}


async def test_a_wait_ends_at_its_deadline():
    fleet, _, (late, other) = await full(ticket(deadline=50.0), ticket(deadline=50.1))
    fleet.review(50.0)
    with pytest.raises(Overloaded, match="too long"):
        await late
    assert not other.done()
    assert fleet.queued == {"m": 1}


async def test_every_wait_can_be_ended_before_a_slot_comes_back():
    fleet, (lease,), tasks = await full(ticket(), ticket("other", priority=1))
    fleet.refuse_waiting(lambda: Draining("at the end"))
    assert fleet.queued == {}
    lease.release()
    for task in tasks:
        with pytest.raises(Draining):
            await task
    assert fleet.services[0].in_flight == 0


async def test_a_client_that_leaves_gives_up_its_place():
    fleet, (lease,), (leaves, stays) = await full(ticket(), ticket())
    leaves.cancel()
    await turn()
    assert fleet.queued == {"m": 1}
    lease.release()
    assert (await stays).service.in_flight == 1


async def test_a_slot_that_comes_as_the_client_leaves_goes_to_the_next():
    fleet, (lease,), (leaves, stays) = await full(ticket(), ticket())
    lease.release()
    leaves.cancel()
    await turn()
    assert (await stays).service.in_flight == 1
    assert fleet.queued == {}


async def test_a_client_that_leaves_as_the_slot_comes_back_is_passed_over():
    fleet, (lease,), (leaves, stays) = await full(ticket(), ticket())
    leaves.cancel()
    lease.release()
    await turn()
    assert (await stays).service.in_flight == 1
    assert fleet.queued == {}


async def test_a_slot_that_nobody_wants_any_more_is_free():
    fleet, (lease,), (leaves,) = await full(ticket())
    leaves.cancel()
    lease.release()
    await turn()
    assert fleet.take("m").service.in_flight == 1


def test_a_model_that_has_just_gone_is_no_healthy_backend():
    fleet = build(spec("a"))
    fleet.publish("yaml", [])
    with pytest.raises(NoHealthyBackend):
        fleet.take("m")


async def test_whoever_waits_for_a_model_that_goes_is_told():
    fleet, _, (task,) = await full(ticket())
    fleet.publish("yaml", [])
    with pytest.raises(NoHealthyBackend):
        await task


async def test_whoever_waits_for_a_model_that_its_engine_no_longer_lists_is_told():
    fleet = build(spec("a", None, max_concurrency=1), healthy=False)
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("m")])
    lease = fleet.take("m")
    task = waiting(fleet)
    await turn()
    fleet.set_health(named(fleet, "a"), HEALTHY, [card("n")])
    lease.release()
    with pytest.raises(NoHealthyBackend):
        await task


async def test_everybody_is_told_when_the_last_service_goes_down():
    fleet, _, tasks = await full(ticket(), ticket("p"), ticket(priority=3))
    fleet.set_health(named(fleet, "a"), UNHEALTHY)
    await turn()
    assert [task.done() and type(task.exception()) for task in tasks] == [NoHealthyBackend] * 3
    assert fleet.queued == {}


async def test_whoever_waits_is_served_by_a_service_that_comes_up():
    fleet = build(spec("a", max_concurrency=1), spec("b", max_concurrency=1))
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    fleet.take("m")
    task = waiting(fleet)
    await turn()
    fleet.set_health(named(fleet, "b"), HEALTHY)
    assert (await task).service.name == "b"


async def test_whoever_waits_is_served_by_a_limit_that_is_raised():
    fleet, _, tasks = await full(ticket(), ticket(), ticket())
    fleet.publish("yaml", [spec("a", max_concurrency=3)])
    await turn()
    assert sorted(task.done() for task in tasks) == [False, True, True]


async def test_a_limit_that_is_lowered_gives_nothing_out_until_it_is_kept():
    fleet, leases, (task,) = await full(ticket(), slots=3)
    fleet.publish("yaml", [spec("a", max_concurrency=1)])
    leases[0].release()
    leases[1].release()
    await turn()
    assert not task.done()
    leases[2].release()
    assert (await task).service.in_flight == 1


async def test_a_slot_is_not_given_to_who_has_failed_there():
    fleet = build(spec("a", max_concurrency=1), spec("b", max_concurrency=1))
    leases = {lease.service.name: lease for lease in (fleet.take("m"), fleet.take("m"))}
    task = waiting(fleet, ticket(exclude=[named(fleet, "a")]))
    await turn()
    leases["a"].release()
    await turn()
    assert not task.done()
    leases["b"].release()
    assert (await task).service.name == "b"


async def test_whoever_waits_is_told_when_only_those_are_left_where_it_has_failed():
    fleet = build(spec("a", max_concurrency=1), spec("b", max_concurrency=1))
    fleet.take("m")
    fleet.take("m")
    others = waiting(fleet)
    task = waiting(fleet, ticket(exclude=[named(fleet, "a")]))
    await turn()
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    await turn()
    assert isinstance(task.done() and task.exception(), NoHealthyBackend)
    assert not others.done()
    assert fleet.queued == {"m": 1}


async def test_whoever_has_failed_at_the_only_one_does_not_join_those_who_wait_for_it():
    fleet, _, (other,) = await full(ticket())
    task = waiting(fleet, ticket(exclude=[named(fleet, "a")]))
    await turn()
    assert isinstance(task.done() and task.exception(), NoHealthyBackend)
    assert not other.done()
    assert fleet.queued == {"m": 1}


async def test_whoever_has_failed_somewhere_waits_on_while_another_is_well():
    names = ("a", "b", "c")
    fleet = build(*(spec(name, max_concurrency=1) for name in names))
    for _ in names:
        fleet.take("m")
    task = waiting(fleet, ticket(exclude=[named(fleet, "a")]))
    await turn()
    fleet.set_health(named(fleet, "b"), UNHEALTHY)
    await turn()
    assert not task.done()


async def beside_one_that_failed_there(organization: str) -> asyncio.Task[Lease]:
    """`b` is free; who heads the line of `o` has failed there; a newcomer joins."""
    fleet = build(spec("a", max_concurrency=1), spec("b", max_concurrency=1))
    fleet.take("m", [named(fleet, "b")])
    waiting(fleet, ticket("o", exclude=[named(fleet, "b")]))
    await turn()
    newcomer = waiting(fleet, ticket(organization))
    await turn()
    return newcomer


async def test_no_slot_stays_free_while_another_organization_waits_that_can_use_it():
    assert (await beside_one_that_failed_there("p")).done()


async def test_no_slot_stays_free_while_the_next_in_line_can_use_it():
    """Without keys everybody is in one line."""
    assert (await beside_one_that_failed_there("o")).done()


async def test_whoever_waits_is_served_as_soon_as_a_trial_has_succeeded():
    fleet = build(spec("a", max_concurrency=2), spec("b", max_concurrency=1))
    a = named(fleet, "a")
    fleet.take("m", [a])
    fleet.note_failure(a, "busy", wait_s=0.0)
    trial = fleet.take("m")
    assert trial.service is a
    task = waiting(fleet)
    await turn()
    trial.succeeded()
    await turn()
    assert task.done()


async def test_a_higher_priority_is_served_before_who_came_earlier():
    _, (lease,), (low, high) = await full(ticket(), ticket(priority=1))
    lease.release()
    await turn()
    assert (low.done(), high.done()) == (False, True)


async def test_a_dear_and_a_cheap_organization_share_a_slot_by_tokens():
    dear = [ticket("dear", MOST) for _ in range(20)]
    cheap = [ticket("cheap", 256) for _ in range(300)]
    _, (lease,), tasks = await full(*dear, *cheap)
    owner = dict(zip(tasks, dear + cheap, strict=True))
    tokens: Counter[str] = Counter()
    for _ in range(100):
        lease.release()
        await turn()
        (task,) = [each for each in owner if each.done()]
        each = owner.pop(task)
        tokens[each.organization] += each.cost
        lease = task.result()
    assert tokens["dear"] <= tokens["cheap"] + QUANTUM_TOKENS + MOST


# -- everything at once ------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["take", "wait", "wait", "wait", "release", "cancel", "down", "up", "limit", "late"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


class Crowd:
    """Requests that take, wait, leave and give back, in any order the test likes."""

    def __init__(self) -> None:
        self.fleet = build(spec("a", max_concurrency=2), spec("b", max_concurrency=1))
        self.limits = {"a": 2, "b": 1}
        self.held: list[Lease] = []
        self.lines: list[asyncio.Task[Lease]] = []
        self.joined = self.served = self.failed = self.left = 0
        self.now = 0.0

    def service(self, number: int):
        return named(self.fleet, "ab"[number % 2])

    def do(self, step: str, number: int) -> None:
        if step == "take":
            with contextlib.suppress(Overloaded, NoHealthyBackend, ModelLoading):
                self.held.append(self.fleet.take("m"))
        elif step == "wait":
            exclude = [self.service(number)] if number > 3 else ()
            deadline = self.now + number if number else NEVER
            waits = ticket("xyz"[number % 3], 1 + number * 3000, priority=number // 5,
                           deadline=deadline, exclude=exclude)  # fmt: skip
            self.lines.append(waiting(self.fleet, waits))
            self.joined += 1
        elif step == "release" and self.held:
            self.held.pop(number % len(self.held)).release()
        elif step == "cancel" and self.lines:
            self.lines[number % len(self.lines)].cancel()
        elif step == "down":
            self.fleet.set_health(self.service(number), UNHEALTHY)
        elif step == "up":
            self.fleet.set_health(self.service(number), HEALTHY)
        elif step == "limit":
            self.limits["ab"[number % 2]] = 1 + number // 2
            self.fleet.publish("yaml", [spec(n, max_concurrency=m) for n, m in self.limits.items()])
        elif step == "late":
            self.now += number
            self.fleet.review(self.now)

    def collect(self) -> None:
        for task in [each for each in self.lines if each.done()]:
            self.lines.remove(task)
            if task.cancelled():
                self.left += 1
            elif isinstance(task.exception(), RouterError):
                self.failed += 1
            else:
                self.held.append(task.result())
                self.served += 1

    def check(self) -> None:
        out = Counter(lease.service for lease in self.held)
        assert {s: s.in_flight for s in self.fleet.services if s.in_flight} == out
        assert sum(self.fleet.queued.values()) == len(self.lines)

    async def end(self) -> None:
        """Everything given back: nobody may be left in line for longer than it takes."""
        for number in range(2):
            self.do("up", number)
        while self.lines or self.held:
            before = 2 * len(self.lines) + len(self.held)
            for lease in self.held:
                lease.release()
            self.held.clear()
            self.fleet.review(self.now)
            await turn()
            self.collect()
            assert 2 * len(self.lines) + len(self.held) < before, self.lines
        assert self.joined == self.served + self.failed + self.left
        assert all(not service.in_flight for service in self.fleet.services)
        assert self.fleet._rooms == {}


@given(STEPS)
def test_no_slot_is_lost_or_handed_out_twice_and_nobody_is_forgotten(steps):
    """Between any two steps everything that can go on has gone on."""

    async def play() -> None:
        crowd = Crowd()
        for step, number in steps:
            before = {s.name: s.in_flight for s in crowd.fleet.services}
            crowd.do(step, number)
            await turn()
            crowd.collect()
            crowd.check()
            for service in crowd.fleet.services:  # a limit that was lowered is kept from then on
                most = max(service.slots, before[service.name])
                assert service.in_flight <= most
        await crowd.end()

    asyncio.run(play())


@given(st.lists(STEPS, max_size=12))
@example([[("take", 0)] * 3, [("wait", 0)], [("cancel", 0), ("release", 0)]])
def test_the_same_where_several_steps_come_in_one_turn_of_the_loop(turns):
    async def play() -> None:
        crowd = Crowd()
        for steps in turns:
            for step, number in steps[:5]:
                crowd.do(step, number)
            await turn()
            crowd.collect()
            crowd.check()
        await crowd.end()

    asyncio.run(play())
