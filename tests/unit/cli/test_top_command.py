"""`router top` as it is called: its exit status, its errors, and the live table on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from struct import pack
from threading import Thread

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli.top import top

TOP = (sys.executable, "-m", "router", "top")
KEY = "the-admin-key"
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]")
_NUMBERS = ("ttft", "response_time", "tokens_per_second")


class Router:
    """`/services` and `/stats` of two services; with the admin key one organization."""

    def __init__(self) -> None:
        self.guarded = False
        self.requests = {"alpha": 1, "beta": 2}
        self.keys: list[str | None] = []

    def answer(self, path: str, key: str | None) -> tuple[int, object]:
        self.keys.append(key)
        if self.guarded and key != f"Bearer {KEY}":
            return 401, {"error": {"code": "missing_api_key"}}
        if path == "/services":
            rows = [
                {"name": name, "state": "healthy", "models": ["org/m"], "in_flight": 0}
                for name in self.requests
            ]
            return 200, {"services": rows, "total": 2}
        rows = [
            {"name": name, "request_count": count, **dict.fromkeys(_NUMBERS, 0.5)}
            for name, count in self.requests.items()
        ]
        page = {"services": rows, "healthy_services": 2, "uptime_s": 5.0}
        if key == f"Bearer {KEY}":
            limits = dict.fromkeys(("daily_tokens", "monthly_tokens", "daily_requests"))
            counts = dict.fromkeys(("tokens_today", "tokens_month", "requests_today"), 1)
            page["organizations"] = [{"id": "acme", **counts, "limits": limits}]
        return 200, page


class Server(ThreadingHTTPServer):
    daemon_threads = True
    router: Router


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, page = self.server.router.answer(self.path, self.headers["authorization"])
        body = msgspec.json.encode(page)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.router = Router()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def router(server) -> Router:
    return server.router


@pytest.fixture
def url(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    return {**plain, "TERM": "xterm-256color", **more}


@pytest.fixture
def run(monkeypatch) -> Callable[..., Result]:
    """The command in this process, its output a pipe."""
    for name in ("ROUTER_URL", "ROUTER_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(top)
    return lambda *arguments, **env: CliRunner().invoke(app, arguments, env=env)


# -- no terminal ---------------------------------------------------------------------------------


def test_into_a_pipe_the_table_is_printed_once_and_plain(run, url):
    ended = run("--url", url)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "alpha" in ended.stdout
    assert "\x1b" not in ended.stdout


def test_a_slash_at_the_urls_end_does_no_harm(run, url):
    assert run("--url", url + "/").exit_code == 0


def test_without_a_key_none_is_sent(run, url, router):
    run("--url", url)
    assert set(router.keys) == {None}


def test_the_key_of_the_environment_shows_organizations(run, url):
    assert "acme" in run("--url", url, ROUTER_ADMIN_KEY=KEY).stdout


def test_the_key_of_a_file_shows_organizations(run, url, tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    assert "acme" in run("--url", url, "--key-file", str(tmp_path / "key")).stdout


def test_a_router_that_asks_for_a_key_is_status_1_and_says_how_to_give_one(run, url, router):
    router.guarded = True
    ended = run("--url", url)
    assert ended.exit_code == 1
    assert "ROUTER_ADMIN_KEY" in ended.stderr


def test_a_wrong_key_is_status_1_and_is_not_repeated(run, url, router):
    router.guarded = True
    ended = run("--url", url, ROUTER_ADMIN_KEY="wrong-key")
    assert ended.exit_code == 1
    assert "wrong-key" not in ended.stderr + ended.stdout


def test_a_wrong_key_is_told_where_the_router_asks_for_none(run, url):
    assert "not this router's admin key" in run("--url", url, ROUTER_ADMIN_KEY="wrong-key").stdout


def test_no_router_is_status_1_and_one_sentence(run):
    ended = run("--url", "http://127.0.0.1:1")
    assert ended.exit_code == 1
    assert "No router answers at http://127.0.0.1:1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_something_else_is_status_1_and_says_so(run, url, router):
    router.answer = lambda *_: (200, ["no", "router"])
    ended = run("--url", url)
    assert ended.exit_code == 1
    assert "is no router" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sort", "colour"),
        ("--url", "router:8000"),
        ("--interval", "0"),
        ("--key-file", "/nonexistent"),
        ("--key-file", "/dev/null"),
    ],
)
def test_wrong_usage_is_status_2(run, arguments):
    assert run(*arguments).exit_code == 2


# -- a terminal ----------------------------------------------------------------------------------


class Terminal:
    """`router top` on a pseudo-terminal of 40 lines and 200 columns."""

    def __init__(self, *arguments: str) -> None:
        self.file, self.theirs = pty.openpty()
        ioctl(self.theirs, termios.TIOCSWINSZ, pack("HHHH", 40, 200, 0, 0))
        self.mode = termios.tcgetattr(self.theirs)
        self.child = subprocess.Popen(
            [*TOP, *arguments], stdin=self.theirs, stdout=self.theirs, stderr=self.theirs,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        self.written = ""

    def read(self, wait_s: float = 0.05) -> None:
        while select.select([self.file], [], [], wait_s)[0]:
            self.written += os.read(self.file, 65536).decode()
            wait_s = 0

    @property
    def screen(self) -> str:
        """The last whole picture, without its colours."""
        return _ESCAPE.sub("", self.written.rpartition("\x1b[H")[2])

    def until(self, pattern: str) -> None:
        """Wait until the screen shows it."""
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.screen, re.DOTALL):
            assert time.monotonic() < deadline, f"{pattern} never came: {self.screen[-3000:]}"
            self.read()

    def press(self, keys: bytes) -> None:
        os.write(self.file, keys)

    def ended(self) -> int:
        """Wait for its end; its exit status."""
        deadline = time.monotonic() + 20
        while self.child.poll() is None:
            assert time.monotonic() < deadline, "it goes on"
            self.read()
        self.read()
        return self.child.returncode


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.child.kill()
        opened.child.wait()
        os.close(opened.file)
        os.close(opened.theirs)


def test_q_ends_it_with_0_and_gives_the_terminal_back(url):
    with terminal("--url", url) as shown:
        shown.until("alpha")
        assert not termios.tcgetattr(shown.theirs)[3] & termios.ECHO
        shown.press(b"q")
        assert shown.ended() == 0
        assert termios.tcgetattr(shown.theirs) == shown.mode
        assert "\x1b[?1049h" in shown.written
        assert shown.written.count("\x1b[?1049l") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_0_and_gives_the_terminal_back(url, number):
    with terminal("--url", url) as shown:
        shown.until("alpha")
        shown.child.send_signal(number)
        assert shown.ended() == 0
        assert termios.tcgetattr(shown.theirs) == shown.mode


def test_a_key_sorts_by_its_column(url):
    with terminal("--url", url) as shown:
        shown.until("alpha.*beta")
        shown.press(b"r")
        shown.until("requests▼.*beta.*alpha")
        shown.press(b"-")
        shown.until("requests▲.*alpha.*beta")


def test_it_is_live(url, router):
    with terminal("--url", url, "--interval", "0.2") as shown:
        shown.until("alpha")
        router.requests = {"alpha": 1, "beta": 2, "gamma": 31337}
        shown.until("gamma.*31,337")


def test_a_router_that_goes_and_comes_back_is_followed(url, router):
    with terminal("--url", url, "--interval", "0.2") as shown:
        shown.until("alpha")
        router.answer = lambda *_: (503, {})
        shown.until("alpha.*Not up to date")
        del router.answer
        shown.until(r"alpha(?!.*Not up to date).*q quit")


def test_once_prints_once_on_a_terminal_too(url):
    with terminal("--url", url, "--once") as shown:
        assert shown.ended() == 0
        assert "\x1b[?1049h" not in shown.written


def test_no_router_is_told_on_the_terminal_itself():
    with terminal("--url", "http://127.0.0.1:1") as shown:
        assert shown.ended() == 1
        assert "No router answers" in shown.written
        assert "\x1b[?1049h" not in shown.written
