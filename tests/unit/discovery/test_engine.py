"""The SDK's client against a server that answers as an engine does, well and badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from router.discovery import engine as engine_module
from router.discovery.container import ContainerEvent, Fate
from router.discovery.engine import DockerEngine, EngineError, EngineIdle
from unit.discovery.test_container import ID, inspected, told

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(value: object, status: int = 200) -> Answer:
    def write(handler: BaseHTTPRequestHandler) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return write


class FakeDocker(ThreadingHTTPServer):
    """Answers by path; what was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {"/version": answer({"ApiVersion": "1.41"})}
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """Clients that break off are what some tests are about."""

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0].removeprefix("/v1.41")
        self.server.answers.get(path, answer({"message": "no such thing"}, 404))(self)

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def docker(monkeypatch) -> Iterator[FakeDocker]:
    monkeypatch.setattr(engine_module, "_IDLE_S", 0.3)
    with FakeDocker() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def stream(*events: bytes, head: bool = True, end: bool = False) -> Answer:
    """A stream of events that then stays open, or ends; without its head until the first event."""

    def write(handler: Handler) -> None:
        if head or events:
            handler.send_response(200)
            handler.send_header("transfer-encoding", "chunked")
            handler.end_headers()
        for event in events:
            handler.chunk(event)
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.server.over.wait(10)
            handler.close_connection = True

    return write


def raised(error: type[EngineError], do: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        do()
    return str(caught.value)


def test_it_speaks_the_engines_own_version_and_asks_for_nothing_off_the_filters_list(docker):
    docker.answers["/containers/json"] = answer([{"Id": ID}])
    docker.answers[f"/containers/{ID}/json"] = answer(inspected())
    docker.answers["/events"] = stream(end=True)
    engine = DockerEngine(docker.endpoint)
    assert engine.labelled() == [ID]
    assert engine.inspect(ID).name == "vllm-chat"
    assert list(engine.events()) == []
    engine.close()
    assert [path.partition("?")[0] for path in docker.asked] == [
        "/version",
        "/v1.41/containers/json",
        f"/v1.41/containers/{ID}/json",
        "/v1.41/events",
    ]


def test_a_container_that_is_gone_is_none(docker):
    assert DockerEngine(docker.endpoint).inspect(ID) is None


def test_a_container_that_cannot_be_understood_is_none_and_stops_nothing(docker):
    docker.answers[f"/containers/{ID}/json"] = answer({"Id": 7})
    assert DockerEngine(docker.endpoint).inspect(ID) is None


def test_events_are_given_as_they_come(docker):
    lines = [json.dumps(told(action)).encode() + b"\n" for action in ("start", "die")]
    docker.answers["/events"] = stream(*lines, end=True)
    events = DockerEngine(docker.endpoint).events()
    assert list(events) == [
        ContainerEvent(ID, Fate.CHANGED, 17),
        ContainerEvent(ID, Fate.DIED, 17),
    ]


def test_a_stream_without_news_is_given_up_after_a_while(docker):
    docker.answers["/events"] = stream()
    events = DockerEngine(docker.endpoint).events()
    raised(EngineIdle, lambda: list(events))


def test_a_stream_whose_head_does_not_come_is_given_up_after_a_while(docker):
    docker.answers["/events"] = stream(head=False)
    raised(EngineIdle, DockerEngine(docker.endpoint).events)


def test_another_thread_can_close_a_stream(docker, monkeypatch):
    monkeypatch.setattr(engine_module, "_IDLE_S", 30)
    docker.answers["/events"] = stream(b'{"message": "no event"}\n')
    events = DockerEngine(docker.endpoint).events()
    threading.Timer(0.1, events.close).start()
    began = time.monotonic()
    assert list(events) == []
    assert time.monotonic() - began < 5
    events.close()


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize(
    ("what", "do"),
    [
        ("cannot list containers", lambda engine: engine.labelled()),
        ("cannot inspect a container", lambda engine: engine.inspect(ID)),
        ("cannot listen", lambda engine: list(engine.events())),
    ],
)
def test_a_refusal_is_an_error_that_says_what_was_asked(docker, what, do, status):
    engine = DockerEngine(docker.endpoint)
    for path in ("/containers/json", f"/containers/{ID}/json", "/events"):
        docker.answers[path] = answer({"message": "only reading"}, status)
    message = raised(EngineError, lambda: do(engine))
    assert message.startswith(f"{what} at {docker.endpoint}: {status} ")


def test_what_is_no_json_is_an_error(docker):
    engine = DockerEngine(docker.endpoint)
    docker.answers["/containers/json"] = docker.answers[f"/containers/{ID}/json"] = answer(
        b"<html>"
    )
    assert "Expecting value" in raised(EngineError, engine.labelled)
    assert "Expecting value" in raised(EngineError, lambda: engine.inspect(ID))


def test_no_engine_at_all_is_an_error_that_says_where_and_why(tmp_path):
    endpoint = f"unix://{tmp_path}/docker.sock"
    message = raised(EngineError, lambda: DockerEngine(endpoint))
    assert message == f"cannot connect at {endpoint}: No such file or directory"


def test_something_else_than_an_engine_is_an_error(docker):
    docker.answers["/version"] = answer({"name": "nginx"})
    assert "cannot connect" in raised(EngineError, lambda: DockerEngine(docker.endpoint))


def test_proxies_of_the_environment_are_not_for_the_engine(docker, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    docker.answers["/containers/json"] = answer([])
    assert DockerEngine(docker.endpoint).labelled() == []


@pytest.mark.parametrize("value", [[], None, "x", 7, {"ApiVersion": 7}])
def test_a_version_of_another_shape_is_an_error(docker, value):
    docker.answers["/version"] = answer(value)
    assert "cannot connect" in raised(EngineError, lambda: DockerEngine(docker.endpoint))


@pytest.mark.parametrize("value", [None, 7, "x", {"a": 1}, [None], ["x"], [[]]])
def test_a_list_of_another_shape_is_an_error(docker, value):
    docker.answers["/containers/json"] = answer(value)
    engine = DockerEngine(docker.endpoint)
    assert "cannot list containers" in raised(EngineError, engine.labelled)


@pytest.mark.parametrize("value", [None, 7, "x", []])
def test_a_container_of_another_shape_is_none(docker, value):
    docker.answers[f"/containers/{ID}/json"] = answer(value)
    assert DockerEngine(docker.endpoint).inspect(ID) is None


@pytest.mark.parametrize("line", [b"[]", b"null", b'"x"', b"7"])
def test_an_event_of_another_shape_is_passed_over(docker, line):
    real = json.dumps(told("die")).encode()
    docker.answers["/events"] = stream(line + b"\n", real + b"\n", end=True)
    assert list(DockerEngine(docker.endpoint).events()) == [ContainerEvent(ID, Fate.DIED, 17)]
