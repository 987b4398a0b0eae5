"""A change of the file, or SIGHUP, puts new settings into effect; a wrong file changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from support.daemon import free_port, service
from support.http import Client, chat, encode
from support.upstream import Gate, Send
from support.wire import DONE, LAST_CHUNK, chunk, delta, stream_head

PATH = "/v1/chat/completions"


# -- taken over --------------------------------------------------------------------------------


def test_a_written_file_is_in_effect_without_a_signal(reloading, upstream, finding):
    router = reloading()
    assert (router.generation, router.error) == (1, None)
    started = time.monotonic()
    router.write(services=[*router.config["services"], service("b", upstream.url, "tiny")])
    router.until_generation(2)
    finding(f"a change of the file was in effect after {time.monotonic() - started:.2f} s")
    assert set(router.daemon.services()) == {"a", "b"}
    (log,) = router.events("reloaded")
    assert log["changes"] == ["services.b: added"]


def test_a_file_renamed_into_place_is_in_effect_each_time(reloading):
    router = reloading()
    path = router.daemon.config_path
    plain = path.read_text()
    round_robin = f"{plain}routing: {{policy: round_robin}}\n"
    for generation, text in ((2, round_robin), (3, plain), (4, round_robin)):
        new = path.with_name("backends.yaml.swp")
        new.write_text(text)
        new.replace(path)
        router.until_generation(generation)


def test_sighup_reads_the_file_again_and_says_so_even_if_nothing_changed(reloading):
    router = reloading()
    router.daemon.signal(signal.SIGHUP)
    router.daemon.until(lambda: len(router.events("reload_changed_nothing")) == 1, "a reload")
    assert (router.generation, router.error) == (1, None)


def test_a_new_secret_in_its_own_file_counts(reloading, upstream, tmp_path):
    secret = tmp_path / "engine-key"
    secret.write_text("one")
    router = reloading(services=[service("a", upstream.url, api_key_file=str(secret))])
    secret.write_text("two")
    router.until_generation(2)
    router.daemon.until(router.answers, "an answer")
    assert upstream.requests[-1].header("authorization") == "Bearer two"


def test_the_metrics_tell_generation_and_success(reloading):
    router = reloading()
    names = ("router_config_generation", "router_config_last_reload_success")
    assert [router.daemon.metric(name) for name in names] == [1, 1]
    router.write_text("services: 1\n")
    router.until_refused()
    assert [router.daemon.metric(name) for name in names] == [1, 0]


def test_the_metrics_tell_when_the_file_was_last_taken(reloading):
    name = "router_config_last_reload_success_timestamp_seconds"
    before = time.time()
    router = reloading()
    taken = router.daemon.metric(name)
    assert before <= taken <= time.time()
    router.write_text("services: 1\n")
    router.until_refused()
    assert router.daemon.metric(name) == taken


# -- storms ------------------------------------------------------------------------------------


def storm(act: Callable[[int], None]) -> int:
    """Do a hundred things in a second; gives how many reloads that may be.

    One for the storm and one for its tail; more only where this process itself was held up: at
    each pause, and every two seconds.
    """
    moments = [time.monotonic()]
    for number in range(1, 101):
        act(number)
        time.sleep(0.008)
        moments.append(time.monotonic())
    pauses = sum(later - earlier > 0.15 for earlier, later in pairwise(moments))
    return 2 + pauses + int((moments[-1] - moments[0]) / 2)


def test_100_rewrites_in_a_second_are_one_or_two_reloads(reloading, finding):
    router = reloading()
    most = storm(lambda number: router.write(server={"max_body_mb": number}))
    router.daemon.until(
        lambda: "-> 100" in str(router.events("reloaded")), "the last of them in effect"
    )
    finding(f"100 rewrites in a second: {router.generation - 1} reloads")
    assert router.generation - 1 <= most
    assert router.error is None


def test_100_sighups_in_a_second_are_one_or_two_reloads(reloading, finding):
    router = reloading()
    most = storm(lambda _: router.daemon.signal(signal.SIGHUP))
    router.daemon.until(lambda: router.events("reload_changed_nothing"), "a reload")
    router.write(server={"max_body_mb": 7})
    router.until_generation(2)
    count = len(router.events("reload_changed_nothing"))
    finding(f"100 SIGHUPs in a second: {count} reloads")
    assert count <= most


# -- refused -----------------------------------------------------------------------------------


def test_a_wrong_file_is_told_with_line_and_key_and_what_runs_goes_on(reloading):
    router = reloading()
    before = router.daemon.config_path.read_text()
    router.write_text(f"{before}routing:\n  policy: fastest\n")
    line = before.count("\n") + 2
    error = router.until_refused()
    path = str(router.daemon.config_path)
    assert error.startswith(f"{path}:{line}: routing.policy: must be one of ")
    (log,) = router.events("reload_refused")
    assert (log["file"], log["line"], log["key"]) == (path, line, "routing.policy")
    assert router.generation == 1
    assert router.answers()
    router.write_text(before)
    router.daemon.until(lambda: router.error is None, "in order again", 10)
    assert router.generation == 1


def test_a_file_that_is_gone_is_told_and_what_runs_goes_on(reloading):
    router = reloading()
    router.daemon.config_path.unlink()
    assert "cannot be read: No such file" in router.until_refused()
    assert router.answers()


def test_a_pipe_in_the_files_place_is_told_and_the_file_noticed_when_it_is_back(reloading):
    router = reloading()
    path = router.daemon.config_path
    path.unlink()
    os.mkfifo(path)
    assert "cannot be read: no regular file" in router.until_refused()
    assert router.answers()
    path.unlink()
    router.write(server={"max_body_mb": 7})
    router.until_generation(2)
    assert router.error is None


def test_a_pipe_in_a_secrets_place_is_told_and_the_secret_noticed_when_it_is_back(
    reloading, upstream, tmp_path
):
    secret = tmp_path / "engine-key"
    secret.write_text("one")
    router = reloading(services=[service("a", upstream.url, api_key_file=str(secret))])
    secret.unlink()
    os.mkfifo(secret)
    assert "services[0].api_key_file" in router.until_refused()
    secret.unlink()
    secret.write_text("two")
    router.until_generation(2)
    assert router.error is None


@pytest.mark.parametrize("place", ["backends.yaml", "engine-key"])
def test_sigterm_ends_a_daemon_that_has_a_pipe_in_a_files_place(
    reloading, upstream, tmp_path, place
):
    secret = tmp_path / "engine-key"
    secret.write_text("one")
    router = reloading(services=[service("a", upstream.url, api_key_file=str(secret))])
    path = router.daemon.config_path if place == "backends.yaml" else secret
    path.unlink()
    os.mkfifo(path)
    router.until_refused()
    assert router.daemon.terminate() == 0


def test_another_listening_address_is_refused_with_a_reason_and_nothing_beside_it_counts(
    reloading,
):
    router = reloading()
    port = f"port: {router.daemon.port}\n"
    text = router.daemon.config_path.read_text()
    router.write_text(text.replace(port, f"port: {free_port()}\n  max_body_mb: 7\n"))
    assert router.until_refused().startswith("server.port: needs a restart")
    assert router.events("reload_refused")[0]["key"] == "server.port"
    assert router.generation == 1
    assert router.answers()
    router.write_text(text.replace(port, f"{port}  max_body_mb: 7\n"))
    router.until_generation(2)
    assert router.error is None


# -- what is under way -------------------------------------------------------------------------


def test_no_stream_is_cut_by_reloads_and_by_the_removal_of_its_service(reloading, upstream):
    gate = Gate()
    upstream.script = lambda _: [
        Send(stream_head() + chunk(delta("a"))), gate, Send(chunk(delta("b") + DONE) + LAST_CHUNK)
    ]  # fmt: skip
    router = reloading()
    clients = [Client(router.daemon.port) for _ in range(20)]
    try:
        answers = []
        for client in clients:
            client.send(encode("POST", PATH, chat(stream=True)))
            answers.append(client.response())
        for answer in answers:
            answer.read_until(delta("a"))
        for size in (1, 2, 3):
            router.write(server={"max_body_mb": size})
            router.until_generation(1 + size)
        router.write(services=[service("b", "http://127.0.0.1:9", "other")])
        router.until_generation(5)
        gate.open()
        for answer in answers:
            assert answer.read().body == delta("a") + delta("b") + DONE
    finally:
        gate.open()
        for client in clients:
            client.close()
    router.daemon.until(lambda: set(router.daemon.services()) == {"b"}, "a is gone", 10)


# -- router check --diff -----------------------------------------------------------------------


def test_check_diff_compares_with_what_runs(reloading, upstream):
    router = reloading()
    same = router.check_diff()
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.startswith("no change to generation 1, running since ")

    planned = router.daemon.config_path.with_name("planned.yaml")
    text = router.daemon.config_path.read_text()
    planned.write_text(text + "routing: {policy: round_robin}\n")
    diff = router.check_diff(planned)
    assert (diff.returncode, diff.stdout) == (
        0,
        'routing.policy "least_load" -> "round_robin"\n',
    )
    planned.write_text(text.replace(f"port: {router.daemon.port}", "port: 1"))
    diff = router.check_diff(planned)
    assert diff.returncode == 1
    assert diff.stdout.startswith(f"server.port {router.daemon.port} -> 1: refused, ")
    assert router.generation == 1


def test_check_diff_follows_a_reload_and_ends_with_the_daemon(reloading):
    router = reloading()
    router.write(server={"max_body_mb": 7})
    router.daemon.until(lambda: "generation 2" in router.check_diff().stdout, "told", 20)
    snapshot = router.daemon.config_path.parent / "state" / "router.db.running.json"
    assert snapshot.stat().st_mode & 0o777 == 0o600
    router.daemon.terminate()
    ended = router.check_diff()
    assert ended.returncode == 2
    assert "no daemon with this state runs" in ended.stderr


def test_check_diff_with_the_ledger_in_memory_says_that_nothing_is_kept(reloading):
    router = reloading(ledger={"url": "memory://"})
    assert router.check_diff().returncode == 2
