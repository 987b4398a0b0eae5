"""Containers that come and go on a real engine, and what the router makes of them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from support.daemon import Daemon, service
from support.docker import MODEL, Docker, until
from support.http import Client, Response, call, chat

pytestmark = pytest.mark.docker
PATH = "/v1/chat/completions"
OUT_S = 1.0


@pytest.fixture
def pair(docker, start_router):
    """Two members of the group `chat`, both healthy: the router, and their containers."""
    router = start_router()
    ids = [docker.engine(name, labels={"name": "chat"}, delay_s=0.2) for name in ("a", "b")]
    until(lambda: router.healthy_count() == 2, "both healthy")
    return router, ids


def url_of(docker: Docker, id_: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return f"http://{docker('inspect', '-f', form, id_)}:8000"


def urls(router: Daemon) -> set[str]:
    """Where the services are that may be given requests or may come to be; none that drains."""
    return {row["url"] for row in router.services().values() if row["state"] != "draining"}


def ask(router: Daemon) -> Response:
    """One unary request, answered."""
    return call(router.port, "POST", PATH, chat(MODEL), timeout=60)


def answerer(router: Daemon) -> str:
    """Which container answers a request: its short identifier."""
    answer = ask(router)
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["message"]["content"]).split()[0]


@contextmanager
def load(router: Daemon, clients: int) -> Iterator[list[int]]:
    """Unary requests from this many clients for as long as the context lasts; their statuses."""
    statuses: list[int] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            statuses.append(ask(router).status)

    with ThreadPoolExecutor(clients) as pool:
        tasks = [pool.submit(work) for _ in range(clients)]
        try:
            yield statuses
        finally:
            stop.set()
    for task in tasks:
        task.result()


# -- labels --------------------------------------------------------------------------------------


def test_a_labelled_container_is_listed_within_a_second_and_serves(docker, start_router, finding):
    router = start_router()
    id_ = docker.engine("a", labels={"name": "chat", "weight": "3", "max-concurrency": "7"})
    took = until(lambda: "chat" in router.services(), "listed", timeout=OUT_S)
    finding(f"docker run: listed after {took * 1000:.0f} ms")
    until(lambda: router.healthy_count() == 1, "healthy")
    row = router.services()["chat"]
    assert (row["url"], row["source"], row["group"]) == (url_of(docker, id_), "docker", "chat")
    assert (row["weight"], row["max_concurrency"], row["models"]) == (3, 7, [MODEL])
    assert answerer(router) == id_[:12]


def test_what_runs_already_is_found_at_the_start(docker, start_router):
    id_ = docker.engine("a", labels={"name": "chat"})
    router = start_router()
    until(lambda: router.healthy_count() == 1, "healthy")
    assert urls(router) == {url_of(docker, id_)}


def test_a_container_without_the_label_or_on_another_network_is_none_of_ours(docker, start_router):
    router = start_router()
    docker.engine("off", labels={"enable": "false"})
    docker.engine("elsewhere", "--network=bridge", labels={"name": "elsewhere"})
    docker.engine("here", labels={"name": "here"})
    until(lambda: "here" in router.services(), "listed")
    assert set(router.services()) == {"here"}
    until(lambda: "is not on this network" in router.log, "a warning")


def test_a_container_that_joins_the_network_later_comes_and_goes_with_it(docker, start_router):
    router = start_router()
    id_ = docker.engine("late", "--network=bridge", labels={"name": "late"})
    docker("network", "connect", docker.network, id_)
    assert until(lambda: "late" in router.services(), "listed") < OUT_S
    docker("network", "disconnect", docker.network, id_)
    assert until(lambda: "late" not in router.services(), "out") < OUT_S


def test_a_bad_label_leaves_its_container_out_and_no_other(docker, start_router):
    router = start_router()
    docker.engine("bad", labels={"name": "bad", "port": "eighty"})
    docker.engine("good", labels={"name": "good"})
    until(lambda: "good" in router.services(), "listed")
    line = next(line for line in router.log.splitlines() if "router.port" in line)
    assert f"bad-{docker.run_id}" in line
    assert "must be a whole number (it is 'eighty')" in line
    assert set(router.services()) == {"good"}


def test_the_gpu_is_that_of_the_device_request(docker, start_router):
    router = start_router()
    try:
        docker.engine("a", "--gpus", '"device=1,3"', labels={"name": "requested"})
    except AssertionError as error:
        if "could not select device driver" in str(error):
            pytest.skip("the engine gives no GPUs; one with stand-ins for them does")
        raise
    docker.engine("b", "-e", "NVIDIA_VISIBLE_DEVICES=2", labels={"name": "by-variable"})
    docker.engine("c", "--gpus", "device=0", labels={"name": "labelled", "gpu": "rack-7"})
    until(lambda: len(router.services()) == 3, "listed")
    gpus = {name: row["gpu"] for name, row in router.services().items()}
    assert gpus == {"requested": "1,3", "by-variable": "2", "labelled": "rack-7"}


def test_an_engines_key_is_read_from_the_routers_own_file(docker, start_router, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("sk-engine\n")
    router = start_router()
    docker.engine("a", labels={"name": "chat", "api-key-file": str(secret)})
    until(lambda: router.healthy_count() == 1, "healthy")
    answer = ask(router)
    assert answer.json["choices"][0]["message"]["content"].endswith("Bearer sk-engine")
    assert "sk-engine" not in router.log


def test_a_service_of_the_file_wins_over_a_label_of_the_same_name(docker, start_router):
    id_ = docker.engine("a", labels={"name": "chat"})
    docker.engine("b", labels={"name": "chat"})
    docker.engine("c", labels={"name": "other"})
    mine = service("chat", url_of(docker, id_), MODEL, gpu="file")
    router = start_router(services=[mine])
    until(lambda: "other" in router.services(), "listed")
    assert {name: row["source"] for name, row in router.services().items()} == {
        "chat": "yaml",
        "other": "docker",
    }


# -- what comes and goes -------------------------------------------------------------------------


def test_two_containers_of_one_name_are_both_members(pair):
    router, ids = pair
    rows = router.services()
    assert {row["group"] for row in rows.values()} == {"chat"}
    assert "chat" in rows
    assert set(rows) - {"chat"} == {f"chat-{ids[1][:12]}"}
    assert {answerer(router) for _ in range(20)} == {id_[:12] for id_ in ids}


@pytest.mark.parametrize("action", ["kill", "stop", "pause"])
def test_what_ends_under_load_is_out_within_a_second_and_no_request_fails(
    docker, pair, action, finding
):
    router, ids = pair
    url = url_of(docker, ids[0])
    with load(router, 20) as statuses:
        until(lambda: len(statuses) > 100, "load")
        began = time.monotonic()
        docker(action, *(["-t", "1"] if action == "stop" else []), ids[0])
        until(lambda: url not in urls(router), "out", timeout=OUT_S)
        took = time.monotonic() - began
        before = len(statuses)
        until(lambda: len(statuses) > before + 100, "load goes on")
    finding(
        f"docker {action}: out {took * 1000:.0f} ms after the command was begun, "
        f"{len(statuses)} requests, all of them 200"
    )
    assert set(statuses) == {200}


def test_what_was_killed_and_is_started_again_is_used_again(docker, pair):
    router, ids = pair
    docker("kill", ids[0])
    until(lambda: len(urls(router)) == 1, "out", timeout=OUT_S)
    assert {answerer(router) for _ in range(5)} == {ids[1][:12]}
    docker("start", ids[0])
    until(lambda: len(urls(router)) == 2, "listed", timeout=OUT_S)
    until(lambda: router.healthy_count() == 2, "healthy")
    assert {answerer(router) for _ in range(20)} == {id_[:12] for id_ in ids}


def test_what_was_paused_is_back_when_it_goes_on(docker, pair):
    router, ids = pair
    docker("pause", ids[0])
    until(lambda: len(urls(router)) == 1, "out", timeout=OUT_S)
    docker("unpause", ids[0])
    until(lambda: router.healthy_count() == 2, "healthy", timeout=5)


def test_a_call_that_waits_at_a_paused_container_moves_at_once(docker, start_router, finding):
    router = start_router()
    slow = docker.engine("slow", labels={"name": "slow", "weight": "1000"}, delay_s=60)
    until(lambda: router.healthy_count() == 1, "healthy")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, router)
        until(lambda: router.in_flight() == 1, "in flight")
        docker.engine("quick", labels={"name": "quick"})
        until(lambda: router.healthy_count() == 2, "both healthy")
        docker("pause", slow)
        began = time.monotonic()
        answer = waiting.result(timeout=10)
    finding(
        f"a call at a paused container answered elsewhere after {time.monotonic() - began:.3f} s"
    )
    assert answer.status == 200
    assert answer.header("x-router-service") == "quick"


def test_a_container_that_docker_finds_unhealthy_is_out_and_back(docker, start_router):
    router = start_router()
    health = ["--health-cmd", "test ! -e /tmp/bad", "--health-interval", "200ms"]
    id_ = docker.engine("a", *health, "--health-retries", "1", labels={"name": "chat"})
    until(lambda: router.healthy_count() == 1, "healthy")
    docker("exec", id_, "touch", "/tmp/bad")
    unhealthy = "{{.State.Health.Status}}"
    until(lambda: docker("inspect", "-f", unhealthy, id_) == "unhealthy", "unhealthy to Docker")
    until(lambda: "chat" not in router.services(), "out", timeout=OUT_S)
    docker("exec", id_, "rm", "/tmp/bad")
    until(lambda: router.healthy_count() == 1, "back")


def test_a_container_that_is_replaced_at_its_address_starts_anew(docker, start_router):
    router = start_router()
    first = docker.engine("one", labels={"name": "chat"})
    url = url_of(docker, first)
    until(lambda: router.healthy_count() == 1, "healthy")
    docker("rm", "-f", first)
    until(lambda: not router.services(), "out", timeout=OUT_S)
    second = docker.engine("two", labels={"name": "chat"})
    until(lambda: urls(router) == {url_of(docker, second)}, "listed", timeout=OUT_S)
    assert url == url_of(docker, second)
    until(lambda: router.healthy_count() == 1, "healthy")
    assert answerer(router) == second[:12]


def test_a_stream_from_a_container_that_stays_goes_on_while_others_come_and_go(docker, pair):
    router, ids = pair
    docker("kill", ids[0])
    until(lambda: len(urls(router)) == 1, "out", timeout=OUT_S)
    with Client(router.port) as client:
        answer = client.request("POST", PATH, chat(MODEL, stream=True))
        answer.read_until(b"one ")
        docker("start", ids[0])
        answer.read()
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_hundred_containers_at_random_for_a_minute_end_as_docker_lists_them(
    docker, start_router, finding
):
    """Created before, as this is about what follows their events."""
    router = start_router()
    names = [f"c{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(lambda name: docker.engine(name, labels={"name": name}, verb="create"), names)
        )
    dice = random.Random(5)
    until_s = time.monotonic() + 60
    acts = 0

    def act(number: int) -> None:
        name, verb = (
            f"{names[number]}-{docker.run_id}",
            dice.choice(["start", "start", "kill", "stop"]),
        )
        docker(verb, *(["-t", "0"] if verb == "stop" else []), name, check=False)

    with ThreadPoolExecutor(4) as pool:
        while time.monotonic() < until_s:
            list(pool.map(act, (dice.randrange(100) for _ in range(8))))
            acts += 8
    running = {name.rpartition("-")[0] for name in docker.labelled()}
    took = until(lambda: set(router.services()) == running, "as docker ps", timeout=OUT_S)
    finding(f"{acts} starts and stops of 100 containers in 60 s: {len(running)} run, "
            f"registry equal {took * 1000:.0f} ms after the last")  # fmt: skip
    assert running == {name.rpartition("-")[0] for name in docker.labelled()}
    assert router.metric("router_discovery_services", source="docker") == len(running)


# -- the settings --------------------------------------------------------------------------------


def test_a_reload_switches_discovery_off_and_on(docker, start_router, tmp_path):
    docker.engine("a", labels={"name": "chat"})
    router = start_router()
    until(lambda: router.healthy_count() == 1, "healthy")
    places = {"endpoint": docker.host, "network": docker.network}
    router.write({"discovery": {"docker": {**places, "enabled": False}, "files": "none.d"}})
    until(lambda: not router.services(), "out")
    router.write({"discovery": {"docker": {**places, "enabled": True}}})
    until(lambda: router.healthy_count() == 1, "healthy again")


def test_without_an_engine_the_router_starts_and_finds_it_when_it_is_there(
    docker, start_router, tmp_path, docker_host
):
    docker.engine("a", labels={"name": "chat"})
    link = tmp_path / "docker.sock"
    router = start_router(f"unix://{link}")
    until(lambda: "discovery_lost" in router.log, "a warning")
    assert router.metric("router_discovery_healthy", source="docker") == 0
    link.symlink_to(docker_host.removeprefix("unix://"))
    until(lambda: router.healthy_count() == 1, "found", timeout=5)
    assert router.metric("router_discovery_healthy", source="docker") == 1


def test_the_health_page_answers_while_docker_is_followed(pair):
    router, _ = pair
    assert call(router.port, "GET", "/health").status == 200
