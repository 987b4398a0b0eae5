"""Until the first byte of an answer a failure moves the call; after that it never does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.daemon import Daemon, free_port, service
from support.http import Client, call, chat, encode
from support.upstream import Close, Gate, Pause, Reset, Script, ScriptedUpstream, Send, Stall, Step
from support.wire import DONE, LAST_CHUNK, Request, answer, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
PATIENT = {"consecutive_failures": 1000}


def routed_to(*urls: str, **more) -> dict:
    """Configuration of services a, b, … that all serve `tiny`."""
    rows = [service(name, url, "tiny") for name, url in zip("abc", urls, strict=False)]
    return {"services": rows, "ejection": PATIENT, **more}


class FirstThen:
    """A script for two upstreams: whichever is asked first misbehaves as long as it is asked.

    On a kept connection that may be twice: what ends there before its first byte is tried anew.
    """

    def __init__(self, first: Iterable[Step], then: Iterable[Step]):
        self._first, self._then = list(first), list(then)
        self._misbehaving: int | None = None
        self._lock = threading.Lock()

    def script(self, upstream: ScriptedUpstream) -> Script:
        def steps(_: Request) -> list[Step]:
            with self._lock:
                if self._misbehaving is None:
                    self._misbehaving = upstream.port
            return self._first if self._misbehaving == upstream.port else self._then

        return steps


@pytest.fixture(scope="module")
def pair():
    with ScriptedUpstream() as a, ScriptedUpstream() as b:
        yield a, b


@pytest.fixture(scope="module")
def router(pair, start_module_daemon) -> Daemon:
    a, b = pair
    return start_module_daemon(routed_to(a.url, b.url, server={"request_timeout_s": 2}))


@pytest.fixture
def scripted(pair, router) -> Callable[..., list[ScriptedUpstream]]:
    """Give both upstreams one script, and forget what they were asked before.

    Moves are held to a fifth of the requests of the last 10 s, so each test pays for its own.
    """

    def give(first: Iterable[Step], then: Iterable[Step] = (Send(chat_answer()),)):
        for upstream in pair:
            upstream.script = lambda _: [Send(chat_answer())]
        for _ in range(15):
            assert call(router.port, "POST", PATH, chat()).status == 200
        both = FirstThen(first, then)
        for upstream in pair:
            upstream.forget()
            upstream.script = both.script(upstream)
        return list(pair)

    return give


def asked(upstreams) -> int:
    return sum(len(u.requests) for u in upstreams)


def name_of_last_asked(upstreams) -> str:
    return max(zip(upstreams, "ab", strict=True), key=lambda pair: pair[0].requests[-1].at)[1]


# -- moved -----------------------------------------------------------------------------------------

FAILURES = {
    "rst": [Reset()],
    "fin": [Close()],
    "garbage": [Send(b"\x00\x01\x02 this is not HTTP\r\n\r\n"), Stall()],
    "half-a-head": [Send(b"HTTP/1.1 200 OK\r\ncontent-le"), Close()],
    "endless-head": [Send(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2_000_000), Stall()],
    "bad-length": [Send(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}"), Stall()],
    "two-lengths": [
        Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}"), Close()
    ],
    "head-then-rst": [Send(stream_head()), Reset()],
    "head-then-fin": [Send(chat_answer().split(b"\r\n\r\n")[0] + b"\r\n\r\n"), Close()],
    "interim-then-fin": [Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Close()],
    "500": [Send(answer({"error": "broken"}, 500))],
    "502": [Send(answer({"error": "broken"}, 502))],
    "503": [Send(answer({"error": "full"}, 503))],
    "500-in-pieces": [Send(answer({"error": "broken"}, 500)[:-4]), Pause(0.05), Close()],
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_before_the_first_byte_moves_the_call(router, scripted, failure, stream):
    good = (
        stream_head() + chunk(delta("good") + DONE) + LAST_CHUNK if stream else chat_answer("good")
    )
    upstreams = scripted(FAILURES[failure], [Send(good)])
    response = call(router.port, "POST", PATH, chat(stream=stream))
    assert response.status == 200
    assert b"good" in response.body
    assert response.whole
    assert all(u.requests for u in upstreams)
    assert response.header("x-router-service") == name_of_last_asked(upstreams)
    router.until_idle()


def test_the_body_that_is_moved_is_the_same_body(router, scripted):
    upstreams = scripted([Reset()])
    body = b'{ "model":"tiny" ,"messages":[], "top_k":1.0, "x":"\\u00e9\xc3\xa9" }'
    assert call(router.port, "POST", PATH, body).status == 200
    assert [{r.body for r in u.requests} for u in upstreams] == [{body}, {body}]


def test_a_refused_connection_moves_the_call(start_daemon, start_upstream):
    good = start_upstream()
    dead = ScriptedUpstream()
    with dead:
        daemon = start_daemon(routed_to(dead.url, good.url))
        dead.die()
        for _ in range(6):
            assert call(daemon.port, "POST", PATH, chat()).status == 200
    assert len(good.requests) == 6


def test_a_moved_call_is_counted_as_a_retry(router, scripted):
    scripted([Reset()])
    before = router.metric("router_upstream_retries_total")
    assert call(router.port, "POST", PATH, chat()).status == 200
    assert router.metric("router_upstream_retries_total") == before + 1


def test_six_hundred_requests_outlive_a_service_that_dies(start_daemon, start_upstream, finding):
    """32 clients, two services; one is reset in the middle of its work and never comes back."""
    served = [Pause(0.004), Send(chat_answer())]
    doomed, steady = start_upstream(lambda _: served), start_upstream(lambda _: served)
    daemon = start_daemon(routed_to(doomed.url, steady.url, ejection={}))
    local = threading.local()
    done = iter(range(600))

    def one(number: int) -> int:
        if not hasattr(local, "client"):
            local.client = Client(daemon.port)
            clients.append(local.client)
        status = local.client.request("POST", PATH, chat(user=str(number))).read().status
        if next(done) == 200:
            doomed.die()
        return status

    clients: list[Client] = []
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(one, range(600)))
    for client in clients:
        client.close()
    share = len(doomed.requests)
    finding(f"600 requests while one of two dies by RST: {statuses.count(200)} of 200, "
            f"{share} were sent to the one that died")  # fmt: skip
    assert statuses == [200] * 600
    assert share > 50
    daemon.until_idle()


# -- not moved -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
def test_a_backends_own_4xx_is_passed_on_and_not_moved(router, scripted, status):
    content = {"error": {"message": "no", "code": status}}
    upstreams = scripted([Send(answer(content, status, headers=(("x-why", "yes"),)))])
    response = call(router.port, "POST", PATH, chat())
    assert (response.status, response.json, response.header("x-why")) == (status, content, "yes")
    assert asked(upstreams) == 1


def test_no_first_byte_in_time_is_504_and_not_moved(router, scripted):
    upstreams = scripted([Stall()])
    response = call(router.port, "POST", PATH, chat())
    assert (response.status, response.error["code"]) == (504, "gateway_timeout")
    assert response.error["type"] == "api_error"
    assert asked(upstreams) == 1
    router.until_idle()


def test_a_head_without_a_body_in_time_is_504_and_not_moved(router, scripted):
    upstreams = scripted([Send(stream_head()), Stall()])
    response = call(router.port, "POST", PATH, chat(stream=True))
    assert (response.status, response.error["code"]) == (504, "gateway_timeout")
    assert asked(upstreams) == 1


def test_a_head_that_never_ends_in_time_is_504(router, scripted):
    scripted([Send(b"HTTP/1.1 200 OK\r\nx: "), Stall()])
    assert call(router.port, "POST", PATH, chat()).status == 504


def test_a_break_after_the_first_byte_is_never_moved(router, scripted):
    gate = Gate()
    upstreams = scripted([Send(stream_head() + chunk(delta("a"))), gate, Reset()])
    with Client(router.port) as client:
        client.send(encode("POST", PATH, chat(stream=True)))
        response = client.response()
        response.read_until(delta("a"))
        gate.open()
        response.read()
    assert b"upstream_disconnected" in response.body
    assert asked(upstreams) == 1


def test_a_client_that_goes_during_a_failure_starts_no_second_attempt(router, scripted):
    gate = Gate()
    upstreams = scripted([gate, Reset()])
    client = Client(router.port)
    client.send(encode("POST", PATH, chat()))
    assert gate.reached.wait(10)
    client.reset()
    router.until_idle()
    gate.open()
    assert call(router.port, "POST", "/v1/nope").status == 404
    assert asked(upstreams) == 1


# -- nothing left ----------------------------------------------------------------------------------


def test_the_last_5xx_is_passed_on_as_it_is(router, pair):
    for upstream, status in zip(pair, (500, 503), strict=True):
        upstream.forget()
        body = {"detail": f"from {upstream.port}"}
        reply = answer(body, status, headers=(("x-engine", str(upstream.port)),))
        upstream.script = lambda _, reply=reply: [Send(reply)]
    response = call(router.port, "POST", PATH, chat())
    last = max(pair, key=lambda u: u.requests[0].at)
    assert response.status == (500, 503)[pair.index(last)]
    assert response.json == {"detail": f"from {last.port}"}
    assert response.header("x-engine") == str(last.port)
    assert response.header("x-router-service") == "ab"[pair.index(last)]


def test_a_5xx_that_one_gave_is_passed_on_when_the_other_breaks(router, scripted):
    """It is the last answer that a backend did give."""
    reply = answer({"detail": "out of memory"}, 500)
    scripted([Send(reply)], [Reset()])
    response = call(router.port, "POST", PATH, chat())
    assert (response.status, response.json) == (500, {"detail": "out of memory"})


def test_a_streams_5xx_reaches_the_client_as_a_plain_answer(router, scripted):
    reply = answer({"error": {"message": "full"}}, 503)
    scripted([Send(reply)], [Send(reply)])
    response = call(router.port, "POST", PATH, chat(stream=True))
    assert (response.status, response.json) == (503, {"error": {"message": "full"}})


@pytest.mark.parametrize("failure", [k for k in FAILURES if not k.startswith("50")])
def test_a_call_that_every_service_breaks_is_502(router, scripted, failure):
    upstreams = scripted(FAILURES[failure], FAILURES[failure])
    response = call(router.port, "POST", PATH, chat())
    assert (response.status, response.error["code"]) == (502, "bad_gateway")
    assert response.error["type"] == "api_error"
    assert all(u.requests for u in upstreams)
    router.until_idle()


def test_a_502_on_messages_has_anthropics_form(router, scripted):
    scripted([Reset()], [Reset()])
    response = call(router.port, "POST", "/v1/messages", {**chat(), "max_tokens": 5})
    assert response.status == 502
    assert response.json["type"] == "error"
    assert response.json["error"]["type"] == "api_error"


# -- connections that were kept --------------------------------------------------------------------


def alone(start_daemon, upstream) -> Daemon:
    return start_daemon({"services": [service("only", upstream.url, "tiny")]})


@pytest.mark.parametrize("ending", [Close(), Reset()], ids=["fin", "rst"])
def test_a_kept_connection_that_ends_at_the_next_request_is_retried_for_free(
    start_daemon, start_upstream, ending
):
    """With one service and no failure counted: it was stale, nobody is to blame."""
    used: set[int] = set()

    def script(request):
        if request.connection in used:
            return [ending]
        used.add(request.connection)
        return [Send(chat_answer())]

    upstream = start_upstream(script)
    daemon = alone(start_daemon, upstream)
    for _ in range(10):
        assert call(daemon.port, "POST", PATH, chat()).status == 200
    assert any(c.requests > 1 for c in upstream.connections), "no connection was ever reused"
    [row] = daemon.stats()["services"]
    assert row["error_count"] == 0
    assert daemon.services()["only"]["state"] == "healthy"


def test_a_connection_that_the_engine_closed_while_idle_is_not_used(start_daemon, start_upstream):
    upstream = start_upstream(lambda _: [Send(chat_answer()), Pause(0.05), Close()])
    daemon = alone(start_daemon, upstream)
    for number in range(1, 6):
        assert call(daemon.port, "POST", PATH, chat()).status == 200
        upstream.wait_closed(upstream.requests[-1])
        assert len(upstream.requests) == number


def test_connections_are_reused(start_daemon, start_upstream):
    upstream = start_upstream()
    daemon = alone(start_daemon, upstream)
    for _ in range(20):
        assert call(daemon.port, "POST", PATH, chat()).status == 200
    assert len(upstream.connections) == 1


def test_an_answer_that_says_close_is_not_followed_by_a_request(start_daemon, start_upstream):
    reply = answer({"id": 1}, headers=(("connection", "close"),))
    upstream = start_upstream(lambda _: [Send(reply)])
    daemon = alone(start_daemon, upstream)
    for _ in range(3):
        response = call(daemon.port, "POST", PATH, chat())
        assert (response.status, response.whole) == (200, True)
    assert [c.scripted for c in upstream.connections] == [1, 1, 1]


def test_an_answer_without_a_length_ends_with_the_connection(start_daemon, start_upstream):
    """HTTP/1.0 manners: the end of the connection is the end of the body, and it is whole."""
    reply = b'HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{"id": 1}'
    upstream = start_upstream(lambda _: [Send(reply), Close()])
    daemon = alone(start_daemon, upstream)
    response = call(daemon.port, "POST", PATH, chat())
    assert (response.status, response.json, response.whole) == (200, {"id": 1}, True)


def test_a_service_that_is_down_at_the_start_is_loading_and_serves_once_it_is_up(start_daemon):
    """503 `model_loading` with `Retry-After`, not 404 and not 502."""
    with ScriptedUpstream() as upstream:
        upstream.die()
        config = {
            "services": [service("late", upstream.url, "tiny")],
            "health": {"interval_s": 1},
        }
        daemon = start_daemon(config, healthy=0)
        response = call(daemon.port, "POST", PATH, chat())
        assert (response.status, response.error["code"]) == (503, "model_loading")
        assert int(response.header("retry-after")) >= 1
        assert daemon.services()["late"]["state"] == "loading"
        upstream.revive()
        daemon.until(lambda: daemon.healthy_count() == 1, "healthy once it is up")
        assert call(daemon.port, "POST", PATH, chat()).status == 200


def test_a_service_never_holds_more_than_it_may(start_daemon, start_upstream):
    """What is over `max_concurrency` waits or is 503 `overloaded`, but is not sent."""
    gate = Gate()
    upstream = start_upstream(lambda _: [gate, Send(chat_answer())])
    row = service("small", upstream.url, "tiny", max_concurrency=3)
    daemon = start_daemon({"services": [row], "limits": {"max_queue": 2}})

    def one(_: int) -> int:
        response = call(daemon.port, "POST", PATH, chat())
        if response.status != 200:
            assert (response.status, response.error["code"]) == (503, "overloaded")
            assert int(response.header("retry-after")) >= 1
        return response.status

    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(one, number) for number in range(12)]
        upstream.wait_requests(3)
        daemon.until(lambda: sum(answer.done() for answer in answers) >= 7, "refused", 10)
        assert len(upstream.requests) == daemon.in_flight() == 3
        gate.open()
        statuses = [answer.result() for answer in answers]
    assert statuses.count(200) == len(upstream.requests) >= 3
    daemon.until_idle()


def test_a_model_whose_services_are_all_down_is_503(start_daemon):
    daemon = start_daemon(
        {"services": [service("gone", f"http://127.0.0.1:{free_port()}", "tiny")]}, healthy=0
    )
    response = call(daemon.port, "POST", PATH, chat())
    assert response.status == 503
    assert response.error["code"] in {"model_loading", "no_healthy_backend"}
    assert response.header("retry-after") is not None
    assert daemon.get("/health").status == 503


def test_a_client_that_sends_too_slowly_ejects_no_engine(start_daemon, start_upstream):
    """Its time runs from its head on, and is over when the engine gets the call."""
    upstream = start_upstream(lambda _: [Pause(2), Send(chat_answer())])
    ejection = {"consecutive_failures": 1, "base_s": 60}
    server = {"request_timeout_s": 1}
    router = start_daemon(routed_to(upstream.url, server=server, ejection=ejection))
    sent = encode("POST", PATH, chat())
    with Client(router.port) as client:
        client.send(sent[:-1])
        time.sleep(1.3)
        client.send(sent[-1:])
        assert client.response().read().status == 504
    assert {row["state"] for row in router.services().values()} == {"healthy"}


def test_who_waited_in_line_until_its_time_was_over_is_sent_to_no_engine(
    start_daemon, start_upstream
):
    gate = Gate()
    upstream = start_upstream(lambda _: [gate, Send(chat_answer())])
    config = routed_to(upstream.url, server={"request_timeout_s": 1})
    config["services"][0]["max_concurrency"] = 1
    router = start_daemon(config)
    with Client(router.port) as holder, Client(router.port) as waiting:
        sent = encode("POST", PATH, chat())
        waiting.send(sent[:-1])
        time.sleep(0.3)  # its time is over before that of who holds the slot
        holder.send(sent)
        assert gate.reached.wait(10)
        waiting.send(sent[-1:])
        assert holder.response().read().status == 504
        refused = waiting.response().read()
    assert (refused.status, refused.error["code"]) == (504, "gateway_timeout")
    assert len(upstream.requests) == 1
    router.until_idle()
