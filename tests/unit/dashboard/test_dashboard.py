"""The dashboard put together: it samples by itself, and its live view opens for its own page."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from router.api.pages import Condition
from router.config.settings import ServerSettings
from router.dashboard.dashboard import Dashboard
from router.dashboard.picture import Sources
from router.errors import BadRequest, MissingApiKey
from router.events import EventLog
from router.ledger import MemoryLedger
from unit.api.asking import asking
from unit.fleet.fleet_fakes import build, spec

HANDSHAKE = (
    (b"host", b"router.test"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)
OWN = (b"origin", b"http://router.test")


def dashboard(fleet=None, **settings) -> Dashboard:
    condition = Condition("running", 1, None)
    sources = Sources(
        fleet or build(spec("a")), MemoryLedger({}), lambda: condition, lambda: 0, "0"
    )
    server = ServerSettings(**settings)
    loop = SimpleNamespace(call_later=lambda *_: None)
    return Dashboard(sources, EventLog(), lambda: server, loop)


def test_its_own_page_gets_the_live_view():
    assert callable(dashboard().live(asking("/dashboard/live", *HANDSHAKE, OWN)))


@pytest.mark.parametrize("origin", [(), ((b"origin", b"http://evil.test"),)])
def test_another_page_does_not_and_neither_does_one_that_does_not_say_who_it_is(origin):
    with pytest.raises(BadRequest):
        dashboard().live(asking("/dashboard/live", *HANDSHAKE, *origin))


def test_who_may_not_look_does_not():
    with pytest.raises(MissingApiKey):
        dashboard(admin_key_sha256="0" * 64).live(asking("/dashboard/live", *HANDSHAKE, OWN))


async def test_the_first_sample_is_taken_at_once():
    board = dashboard()
    task = asyncio.create_task(board.run())
    await asyncio.sleep(0)
    task.cancel()
    assert board._history.number == 1


async def test_a_sample_that_fails_does_not_end_the_router():
    fleet = build(spec("a"))
    board = dashboard(fleet)
    fleet.services[0].cells = None
    task = asyncio.create_task(board.run())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
