"""Who is next: fair between organizations by tokens, in order within one, priority before all."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.waiting import QUANTUM_TOKENS, Ticket, WaitingRoom

MOST = 16 * QUANTUM_TOKENS


@pytest.fixture(autouse=True)
def loop():
    """Tickets hold a future: a loop to belong to, which nothing runs on."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    yield
    asyncio._set_running_loop(None)
    loop.close()


def ticket(organization="a", cost=1, *, priority=0, deadline=1e9) -> Ticket:
    return Ticket(organization, cost, priority, deadline, ())


def room_of(*tickets: Ticket) -> WaitingRoom:
    room = WaitingRoom()
    for each in tickets:
        room.join(each)
    return room


def served(room: WaitingRoom, times: int = 10**6, *, idle_between: int = 0) -> list[Ticket]:
    """Who gets the next slots; between two of them `idle_between` calls find no slot free."""
    got: list[Ticket] = []
    while len(got) < times:
        for _ in range(idle_between):
            assert not room.serve(lambda _: False)
        if not room.serve(lambda each: got.append(each) or True):
            return got
    return got


def test_an_empty_room_serves_nobody():
    assert not WaitingRoom().serve(lambda _: True)


def test_whoever_was_served_waits_no_more():
    room = room_of(ticket(), ticket())
    assert room.serve(lambda _: True)
    assert len(room) == 1


def test_whoever_could_not_be_given_a_slot_still_waits():
    room = room_of(ticket(), ticket("b"))
    assert not room.serve(lambda _: False)
    assert len(room) == 2


def test_the_next_organization_is_asked_where_the_first_can_not_use_the_slot():
    stuck, able = ticket("a"), ticket("b")
    got = []
    assert room_of(stuck, able).serve(lambda each: each is able and not got.append(each))
    assert got == [able]


def test_leaving_twice_is_leaving_once():
    one, other = ticket(), ticket()
    room = room_of(one, other)
    room.leave(one)
    room.leave(one)
    assert served(room) == [other]


def test_leaving_after_being_served_is_nothing():
    one = ticket()
    room = room_of(one, ticket("b"))
    served(room, 1)
    room.leave(one)
    assert len(room) == 1


def test_the_late_are_those_whose_deadline_has_come():
    late, just, early = ticket(deadline=1.0), ticket(deadline=2.0), ticket(deadline=2.5)
    assert room_of(late, just, early).late(2.0) == [late, just]


def test_a_request_counts_for_at_least_a_token_and_at_most_sixteen_quanta():
    assert [ticket(cost=cost).cost for cost in (-5, 0, 7, 10**9)] == [1, 1, 7, MOST]


COSTS = st.integers(1, 2 * MOST)
TICKETS = st.lists(
    st.tuples(st.sampled_from("abcd"), COSTS, st.sampled_from([0, 0, 0, 5, -5])), max_size=60
)


@given(TICKETS)
def test_everybody_is_served_once(rows):
    tickets = [ticket(who, cost, priority=priority) for who, cost, priority in rows]
    got = served(room_of(*tickets))
    assert sorted(map(id, got)) == sorted(map(id, tickets))


@given(TICKETS)
def test_within_an_organization_first_come_is_first_served(rows):
    tickets = [ticket(who, cost, priority=priority) for who, cost, priority in rows]
    got = served(room_of(*tickets))
    for who in "abcd":
        for priority in (5, 0, -5):
            mine = [t for t in tickets if (t.organization, t.priority) == (who, priority)]
            assert [t for t in got if t in mine] == mine


@given(TICKETS)
def test_a_higher_priority_goes_before_all_lower_ones(rows):
    got = served(room_of(*(ticket(who, cost, priority=p) for who, cost, p in rows)))
    assert [each.priority for each in got] == sorted((e.priority for e in got), reverse=True)


def test_a_priority_that_can_not_use_the_slot_does_not_block_the_lower_ones():
    high, low = ticket(priority=9), ticket(priority=1)
    got = []
    assert room_of(high, low).serve(lambda each: each is low and not got.append(each))
    assert got == [low]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, MOST)), max_size=80))
def test_over_a_backlog_of_any_sizes_tokens_are_shared_evenly(rows):
    """While all have somebody waiting, none is ahead by over a quantum and two requests."""
    tickets = [ticket(who, cost) for who, cost in rows]
    room, left = room_of(*tickets), Counter(who for who, _ in rows)
    tokens = Counter({"a": 0, "b": 0, "c": 0})
    while all(left[who] for who in "abc"):
        (each,) = served(room, 1)
        left[each.organization] -= 1
        tokens[each.organization] += each.cost
        ahead = max(tokens.values()) - min(tokens.values())
        assert ahead <= QUANTUM_TOKENS + 2 * max(each.cost for each in tickets)


def test_dear_and_cheap_requests_get_equal_tokens():
    room = room_of(*(ticket("dear", MOST) for _ in range(10)))
    for _ in range(2000):
        room.join(ticket("cheap", 256))
    tokens: Counter[str] = Counter()
    while tokens["dear"] < 4 * MOST:
        (each,) = served(room, 1)
        tokens[each.organization] += each.cost
    assert abs(tokens["dear"] - tokens["cheap"]) <= QUANTUM_TOKENS + MOST


def test_looking_for_a_slot_in_vain_changes_nobodys_turn():
    """Each slot that comes back is followed by such a look: one that finds no further slot."""
    room = room_of(*(ticket("big", MOST) for _ in range(50)))
    for _ in range(300):
        room.join(ticket("small", 256))
    tokens: Counter[str] = Counter()
    for each in served(room, 60, idle_between=1):
        tokens[each.organization] += each.cost
    assert tokens["big"] <= tokens["small"] + QUANTUM_TOKENS + MOST


def test_an_organization_that_comes_late_is_not_starved_by_a_long_backlog():
    room = room_of(*(ticket("a", MOST) for _ in range(100)))
    served(room, 10)
    room.join(ticket("b", 256))
    assert any(each.organization == "b" for each in served(room, 2))


def test_an_idle_organization_saves_nothing_up():
    room = room_of(ticket("a", 1), *(ticket("b", QUANTUM_TOKENS) for _ in range(40)))
    served(room, 20)
    for _ in range(40):
        room.join(ticket("a", QUANTUM_TOKENS))
    got = Counter(each.organization for each in served(room, 20))
    assert abs(got["a"] - got["b"]) <= 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "leave", "serve", "vain"]),
            st.sampled_from("abc"),
            st.integers(0, 2 * MOST),
            st.integers(0, 2),
        ),
        max_size=80,
    )
)
def test_whatever_happens_who_waits_is_who_joined_and_neither_left_nor_was_served(steps):
    room, waiting = WaitingRoom(), []
    for step, who, number, priority in steps:
        if step == "join":
            waiting.append(ticket(who, number, priority=priority))
            room.join(waiting[-1])
        elif step == "leave" and waiting:
            room.leave(waiting.pop(number % len(waiting)))
        elif step == "serve":
            for each in served(room, 1):
                waiting.remove(each)
        elif step == "vain":
            assert not room.serve(lambda _: False)
        assert len(room) == len(waiting)
        assert set(room.late(2e9)) == set(waiting)
    assert sorted(map(id, served(room))) == sorted(map(id, waiting))
    assert room._turns == {}
