"""Who looks on: all of it once, then what changes; nothing while nobody looks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from router.dashboard.entrance import Access
from router.dashboard.history import History, Reading
from router.dashboard.live import Hub
from router.errors import Overloaded
from router.events import EventLog
from router.proxy.websocket import GOING_AWAY, LOGGED_OUT

READING = Reading(0, 0.0, 3, 0.5, (0, 0), (1.0,))


class Socket:
    """A viewer's WebSocket."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.closed: int | None = None
        self.keeps_up = True
        self.checks = 0
        self.on_close = None

    def send(self, text: bytes) -> bool:
        if not self.keeps_up:
            return False
        self.sent.append(json.loads(text))
        return True

    def check(self, now: float) -> None:
        self.checks += 1

    def close(self, code: int, reason: str) -> None:
        self.closed = code


class Stage:
    """A hub whose clock the test moves."""

    def __init__(self) -> None:
        self.services = {"a": b"1"}
        self.looks = 0
        self.events = EventLog()
        self.history = History()
        self.due: list = []
        self.access: dict[Socket, Access] = {}
        self.hub = Hub(self.paint, self.history, self.events, self.later)

    def paint(self):
        self.looks += 1
        return {"services": dict(self.services), "organizations": {"acme": b"[]"}}

    def later(self, seconds, callback):
        handle = SimpleNamespace(cancel=lambda: self.due.remove(callback))
        self.due.append(callback)
        return handle

    def tick(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()

    def join(self, access=Access.ADMIN) -> Socket:
        socket = Socket()
        self.access[socket] = access
        self.hub.join(socket, access, lambda: self.access[socket])
        return socket


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_who_comes_is_sent_all_at_once(stage):
    stage.events.add("service", "a", "is up")
    stage.history.sample(5.0, {"a": READING})
    (message,) = stage.join().sent
    assert message["type"] == "all"
    assert message["services"] == {"a": 1}
    assert [event["text"] for event in message["events"]] == ["is up"]
    assert message["history"]["services"]["a"]["in_flight"] == [3]


def test_each_second_brings_what_has_changed(stage):
    socket = stage.join()
    stage.services = {"a": b"2", "b": b"3"}
    stage.tick()
    assert socket.sent[-1]["type"] == "change"
    assert socket.sent[-1]["services"] == {"a": 2, "b": 3}
    assert "organizations" not in socket.sent[-1]


def test_what_is_gone_is_told_as_null(stage):
    socket = stage.join()
    stage.services = {}
    stage.tick()
    assert socket.sent[-1]["services"] == {"a": None}


def test_while_nothing_changes_the_time_alone_is_told(stage):
    socket = stage.join()
    stage.tick()
    assert set(socket.sent[-1]) == {"type", "at"}


def test_an_event_is_told_once(stage):
    socket = stage.join()
    stage.events.add("service", "a", "is down")
    stage.tick()
    stage.tick()
    told = [each["events"] for each in socket.sent[1:] if "events" in each]
    assert [[event["text"] for event in events] for events in told] == [["is down"]]


def test_a_point_of_the_history_is_told_once(stage):
    socket = stage.join()
    stage.history.sample(5.0, {"a": READING})
    stage.tick()
    stage.tick()
    told = [each["points"] for each in socket.sent[1:] if "points" in each]
    assert told == [
        {
            "number": 1,
            "services": {
                "a": {"tokens_per_s": None, "in_flight": 3, "kv_cache": 0.5, "ttft_p95": None}
            },
        }
    ]


def test_the_whole_says_up_to_which_point_it_goes(stage):
    stage.join()
    stage.history.sample(5.0, {"a": READING})
    late = stage.join()
    assert late.sent[0]["history"]["number"] == 1


def test_a_reader_sees_neither_organizations_nor_their_events(stage):
    reader, admin = stage.join(Access.READER), stage.join(Access.ADMIN)
    stage.events.add("quota", "acme", "used up")
    stage.events.add("service", "a", "is down")
    stage.tick()
    assert "organizations" not in reader.sent[0]
    assert "organizations" in admin.sent[0]
    assert [event["kind"] for event in reader.sent[-1]["events"]] == ["service"]
    assert [event["kind"] for event in admin.sent[-1]["events"]] == ["quota", "service"]


def test_nothing_is_looked_at_while_nobody_looks(stage):
    socket = stage.join()
    socket.on_close()
    stage.tick()
    assert (len(stage.hub), stage.due) == (0, [])
    looks = stage.looks
    stage.tick()
    assert stage.looks == looks


def test_one_that_comes_back_later_starts_it_again(stage):
    stage.join().on_close()
    stage.tick()
    stage.services = {"z": b"1"}
    assert stage.join().sent[0]["services"] == {"z": 1}
    assert len(stage.due) == 1


def test_one_that_was_behind_is_sent_all_again(stage):
    socket = stage.join()
    socket.keeps_up = False
    stage.services = {"a": b"2"}
    stage.tick()
    stage.tick()
    socket.keeps_up = True
    stage.tick()
    assert [message["type"] for message in socket.sent] == ["all", "all"]
    assert socket.sent[-1]["services"] == {"a": 2}


def test_every_second_each_viewer_is_checked(stage):
    socket = stage.join()
    stage.tick()
    assert socket.checks == 1


def test_one_whose_session_has_ended_is_sent_nothing_more(stage):
    socket, other = stage.join(), stage.join()
    stage.access[socket] = Access.NONE
    stage.tick()
    assert socket.closed == LOGGED_OUT
    assert len(socket.sent) == 1
    assert other.closed is None


def test_there_is_room_for_32(stage):
    for _ in range(32):
        stage.hub.check_room()
        stage.join()
    with pytest.raises(Overloaded):
        stage.hub.check_room()


def test_the_end_is_told_to_all(stage):
    sockets = [stage.join(), stage.join()]
    stage.hub.close()
    assert [socket.closed for socket in sockets] == [GOING_AWAY] * 2
    assert stage.due == []
