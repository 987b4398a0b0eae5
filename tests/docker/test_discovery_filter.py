"""What the read-only filter lets through to a real engine, one request at a time."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemon import free_port
from support.docker import Docker, until
from support.http import Dechunker

pytestmark = pytest.mark.docker
CONFIGS = Path(__file__).parents[2] / "nginx"


@contextmanager
def filtering(name: str, folder: Path, docker_host: str) -> Iterator[int]:
    """A filter, as it is delivered but for its port, socket and places to write; its port."""
    if not docker_host.startswith("unix://"):
        pytest.skip("the engine is not on a socket")
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    text = (CONFIGS / f"{name}.conf").read_text()
    for old, new in (
        ("listen 2375;", f"listen 127.0.0.1:{port};"),
        ("unix:/var/run/docker.sock", f"unix:{docker_host.removeprefix('unix://')}"),
        (f"/tmp/{name}", f"{folder}/{name}"),
        ("/dev/stderr", f"{folder}/error.log"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    command = [binary, "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        try:
            until(lambda: listens(port), "nginx listens")
            yield port
        finally:
            child.terminate()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[int]:
    """The router's filter; its port."""
    with filtering("docker-readonly", tmp_path_factory.mktemp("filter"), docker_host) as port:
        yield port


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[int]:
    """The filter of Prometheus; its port."""
    with filtering("docker-listing", tmp_path_factory.mktemp("listing"), docker_host) as port:
        yield port


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def container(docker_host: str) -> Iterator[Docker]:
    """A container that runs; its name is `probe-RUN`."""
    with Docker(docker_host) as docker:
        docker.engine("probe")
        yield docker


def ask(port: int, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request exactly as written; status and body, both of the first answer."""
    head = "\r\n".join((f"{line} HTTP/1.1", "Host: docker", "Connection: close", *headers, "", ""))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(head.encode() + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    top, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in top.lower():
        rest = Dechunker().feed(rest)
    return int(top.split()[1]), rest


def lists_the_probe(body: bytes, docker: Docker) -> bool:
    return f"probe-{docker.run_id}".encode() in body


@pytest.mark.parametrize("version", ["", "/v1.41", "/v1.24"])
def test_the_list_of_containers_passes(nginx, container, version):
    status, body = ask(nginx, f"GET {version}/containers/json?all=1&filters=%7B%7D")
    assert (status, lists_the_probe(body, container)) == (200, True)


@pytest.mark.parametrize("version", ["", "/v1.41"])
def test_one_container_passes_by_name_and_by_identifier(nginx, container, version):
    id_ = container("inspect", "-f", "{{.Id}}", f"probe-{container.run_id}")
    for name in (id_, id_[:12], f"probe-{container.run_id}"):
        status, body = ask(nginx, f"GET {version}/containers/{name}/json")
        assert (status, lists_the_probe(body, container)) == (200, True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["", "/v1.41"])
def test_a_ping_passes(nginx, method, version):
    assert ask(nginx, f"{method} {version}/_ping")[0] == 200


@pytest.mark.parametrize("version", ["", "/v1.41"])
def test_the_version_passes(nginx, version):
    status, body = ask(nginx, f"GET {version}/version")
    assert (status, b"ApiVersion" in body) == (200, True)


def test_an_event_passes_at_once_and_not_when_a_buffer_is_full(nginx, container):
    with socket.create_connection(("127.0.0.1", nginx), timeout=10) as sock:
        sock.sendall(b"GET /v1.41/events HTTP/1.1\r\nHost: docker\r\n\r\n")
        head = sock.recv(65536)
        assert head.startswith(b"HTTP/1.1 200 ")
        container("pause", f"probe-{container.run_id}")
        seen = head
        while b'"pause"' not in seen:
            seen += sock.recv(65536)
        container("unpause", f"probe-{container.run_id}")


POSTS = [
    "/containers/create", "/containers/NAME/start", "/containers/NAME/stop",
    "/containers/NAME/kill", "/containers/NAME/restart", "/containers/NAME/pause",
    "/containers/NAME/rename?name=x",
    "/containers/NAME/update", "/containers/NAME/exec", "/containers/NAME/attach",
    "/containers/NAME/resize", "/containers/NAME/wait", "/containers/prune", "/exec/x/start",
    "/images/create", "/build", "/commit", "/auth", "/session", "/grpc", "/swarm/init",
    "/networks/create", "/volumes/create", "/plugins/pull", "/services/create", "/secrets/create",
    "/containers/json", "/containers/NAME/json", "/events", "/version", "/_ping",
]  # fmt: skip
GETS = [
    "/", "/info", "/images/json", "/images/x/get", "/networks", "/volumes", "/system/df", "/swarm",
    "/secrets", "/configs", "/services", "/tasks", "/nodes", "/plugins", "/distribution/x/json",
    "/exec/x/json", "/containers/NAME/logs?stdout=1", "/containers/NAME/top",
    "/containers/NAME/stats", "/containers/NAME/changes", "/containers/NAME/export",
    "/containers/NAME/archive?path=/etc/passwd", "/containers/NAME/attach/ws",
    "/containers/NAME", "/containers", "/containers/", "/debug/pprof/", "/session",
]  # fmt: skip
TRICKS = [
    "/containers/json/", "/containers/NAME/json/", "//containers/json", "/containers//json",
    "/containers/NAME//json", "/events/", "/_ping/", "/version/", "/./version", "/version/.",
    "/containers/../version", "/containers/NAME/../../info", "/containers/../images/json",
    "/containers/%2e%2e/images/json", "/containers/%2e%2e%2fimages/json", "/%63ontainers/json",
    "/containers/NAME%2fjson", "/containers/NAME/logs%3f/json", "/containers/NAME%2flogs/json",
    "/containers/NAME/logs%00/json", "/containers/NAME/logs;/json", "/containers/NAME;x/json",
    "/containers/json;x", "/containers/NAME/logs#/json", "/containers/NAME/archive/json",
    "/v1.41/v1.41/version", "/v2.0/version", "/v1.41//version", "/v1/version", "/v1.41x/version",
    "/v1.9999/version", "/x/version", "/containers/.hidden/json", "/containers/-x/json",
    "/CONTAINERS/json", "/Version", "/version?x=1", "/_ping?x=1", "/containers/json\t",
    "/containers/NAME/json\x0b", "/containers/" + "a" * 200 + "/json", "\\containers\\json",
    "http://docker/info", "http://docker//containers/json", "*", "/containers/json/../json",
]  # fmt: skip


def refused_by_filter(port: int, line: str, *headers: str, body: bytes = b"") -> bool:
    """Whether the filter itself answers: 403, or that it cannot read the request."""
    status, answer = ask(port, line, *headers, body=body)
    unread = status in {400, 405, 413, 414, 505} and b"<center>nginx</center>" in answer
    return unread or (status == 403 and b"only reading" in answer)


@pytest.mark.parametrize("version", ["", "/v1.41"])
@pytest.mark.parametrize("path", POSTS)
def test_nothing_can_be_done_through_it(nginx, container, version, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    headers = ("Content-Type: application/json", "Content-Length: 2")
    assert refused_by_filter(nginx, f"POST {version}{path}", *headers, body=b"{}")
    assert container.labelled() == {f"probe-{container.run_id}"}


@pytest.mark.parametrize(
    "method", ["DELETE", "PUT", "PATCH", "OPTIONS", "CONNECT", "TRACE", "get", "X"]
)
@pytest.mark.parametrize(
    "path", ["/containers/NAME", "/containers/NAME/json", "/containers/json", "/version"]
)
def test_no_other_method_passes(nginx, container, method, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert refused_by_filter(nginx, f"{method} {path}")
    assert container.labelled() == {f"probe-{container.run_id}"}


def test_a_head_passes_for_a_ping_alone(nginx):
    for path in ("/containers/json", "/version", "/events", "/info"):
        assert ask(nginx, f"HEAD {path}")[0] == 403


@pytest.mark.parametrize("version", ["", "/v1.41"])
@pytest.mark.parametrize("path", GETS)
def test_nothing_else_can_be_read_through_it(nginx, container, version, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert refused_by_filter(nginx, f"GET {version}{path}")


@pytest.mark.parametrize("path", TRICKS)
def test_no_way_of_writing_a_path_gets_around_it(nginx, container, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert refused_by_filter(nginx, f"GET {path}")


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "tcp"])
@pytest.mark.parametrize("path", ["/containers/json", "/containers/NAME/attach/ws", "/events"])
def test_no_connection_can_be_upgraded(nginx, container, upgrade, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert refused_by_filter(nginx, f"GET {path}", f"Upgrade: {upgrade}", "Connection: Upgrade")


def test_a_method_override_changes_nothing(nginx, container):
    name = f"probe-{container.run_id}"
    header = "X-HTTP-Method-Override: DELETE"
    assert ask(nginx, f"GET /containers/{name}/json", header)[0] == 200
    assert container.labelled() == {name}


def test_a_second_request_hidden_in_a_body_is_not_passed_on(nginx, container):
    name = f"probe-{container.run_id}"
    inner = f"POST /containers/{name}/kill HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
    for framing in (
        [f"Content-Length: {len(inner)}"],
        [f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked"],
    ):
        ask(nginx, "GET /version", *framing, body=inner.encode())
    assert container.labelled() == {name}


def test_discovery_needs_no_more_than_it_lets_through(nginx, docker, start_router):
    router = start_router(f"tcp://127.0.0.1:{nginx}")
    id_ = docker.engine("chat", labels={"name": "chat"})
    until(lambda: router.healthy_count() == 1, "found through the filter")
    docker("kill", id_)
    assert until(lambda: "chat" not in router.services(), "out") < 1
    docker("start", id_)
    until(lambda: router.healthy_count() == 1, "back")
    assert router.metric("router_discovery_healthy", source="docker") == 1
    assert "403" not in router.log


def test_what_it_says_when_it_refuses_is_an_answer_that_clients_understand(nginx):
    status, body = ask(nginx, "GET /info")
    assert (status, json.loads(body)) == (
        403,
        {"message": "only reading containers and events is let through here"},
    )


# -- the filter of Prometheus ----------------------------------------------------------------------

UNLISTED = [path for path in GETS if path != "/networks"]


@pytest.mark.parametrize("version", ["", "/v1.41"])
@pytest.mark.parametrize("path", ["/containers/json?all=1", "/networks", "/_ping"])
def test_prometheus_sees_the_lists(listing, container, version, path):
    assert ask(listing, f"GET {version}{path}")[0] == 200


@pytest.mark.parametrize("version", ["", "/v1.41"])
@pytest.mark.parametrize(
    "path", ["/containers/NAME/json", "/networks/bridge", "/events", "/version", *UNLISTED]
)
def test_prometheus_sees_nothing_else(listing, container, version, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert ask(listing, f"GET {version}{path}")[0] == 403


@pytest.mark.parametrize("path", POSTS)
def test_prometheus_can_do_nothing(listing, container, path):
    path = path.replace("NAME", f"probe-{container.run_id}")
    assert ask(listing, f"POST {path}", "Content-Length: 0")[0] == 403
