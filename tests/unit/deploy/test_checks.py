"""start-all.sh says in one sentence what is wrong with a machine, and ends with 1."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest

from support.daemon import free_port
from unit.deploy.machine import Machine


def refusal(machine: Machine, *arguments: str) -> str:
    """The one line with which the checks ended."""
    done = machine.run("start-all.sh", "--check", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_machine_on_which_everything_is_right_passes(machine: Machine) -> None:
    done = machine.run("start-all.sh", "--check")
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_machine_without_gpu_and_settings_passes_for_simulated_engines(machine: Machine) -> None:
    (machine.deploy / ".env").unlink()
    (machine.programs / "nvidia-smi").unlink()
    machine.docker(runtimes="{}", ports="443/tcp -> 0.0.0.0:443\n80/tcp -> 0.0.0.0:80")
    done = machine.run("start-all.sh", "--sim", "--check")
    assert (done.returncode, done.stderr) == (0, ""), done


def _no_docker(machine: Machine) -> None:
    (machine.programs / "docker").unlink()


def _no_engine(machine: Machine) -> None:
    machine.docker(version=None)


def _no_compose(machine: Machine) -> None:
    machine.docker(compose=None)


def _old_compose(machine: Machine) -> None:
    machine.docker(compose="2.3.3")


def _no_settings(machine: Machine) -> None:
    (machine.deploy / ".env").unlink()


def _no_runtime(machine: Machine) -> None:
    machine.docker(runtimes='{"runc":{}}')


def _no_driver(machine: Machine) -> None:
    (machine.programs / "nvidia-smi").unlink()


def _no_gpu(machine: Machine) -> None:
    machine.gpus()


def _wrong_index(machine: Machine) -> None:
    machine.settings(CHAT_GPU="7")


def _no_index(machine: Machine) -> None:
    machine.settings(CHAT_GPU="first")


def _busy_gpu(machine: Machine) -> None:
    machine.gpus("0, 4", "1, 30000")


def _same_ports(machine: Machine) -> None:
    machine.settings(NGINX_HTTP_PORT="8080", NGINX_HTTPS_PORT="8080")


def _no_port(machine: Machine) -> None:
    machine.settings(NGINX_HTTP_PORT="http")


def _no_certificate(machine: Machine) -> None:
    machine.settings(NGINX_HTTP_PORT="1", NGINX_HTTPS_PORT="2", TLS_DIR="/nowhere")


def _relative_certificate(machine: Machine) -> None:
    machine.settings(NGINX_HTTP_PORT="1", NGINX_HTTPS_PORT="2", TLS_DIR="tls")


def _small_disk(machine: Machine) -> None:
    machine.docker(root="/")
    machine.settings(NGINX_HTTP_PORT="1", NGINX_HTTPS_PORT="2", MIN_FREE_GB="1000000")


def _unknown_engine(machine: Machine) -> None:
    machine.settings(ENGINES="chat vision")


def _no_cache(machine: Machine) -> None:
    machine.settings(MODEL_CACHE="/nowhere")


def _other_set_up(machine: Machine) -> None:
    machine.docker(container__vllm__chat="inference-sim")


@pytest.mark.parametrize(
    ("breaks", "wrong", "remedy"),
    [
        (_no_docker, "docker is not installed", "install Docker Engine"),
        (_no_engine, "engine does not answer", "start it (systemctl start docker)"),
        (_no_compose, "docker compose is not there", "install the plugin"),
        (_old_compose, "docker compose is 2.3.3", "install 2.20 or newer"),
        (_no_settings, ".env is missing", "cp deploy/.env.example deploy/.env"),
        (_no_runtime, "no NVIDIA runtime", "nvidia-container-toolkit"),
        (_no_driver, "no NVIDIA GPU or no driver", "--sim"),
        (_no_gpu, "nvidia-smi shows no GPU", "--sim"),
        (_wrong_index, "CHAT_GPU is 7, and this host has GPU 0, 1", "correct it in deploy/.env"),
        (_no_index, "CHAT_GPU is 'first'", "write the index of a GPU"),
        (_busy_gpu, "GPU 1 (CHAT_GPU) is in use (30000 MiB)", "choose another"),
        (_same_ports, "are both 8080", "write two ports"),
        (_no_port, "NGINX_HTTP_PORT is 'http'", "write a port"),
        (_no_certificate, "TLS_DIR has no cert.pem", "leave TLS_DIR empty"),
        (_relative_certificate, "TLS_DIR is 'tls'", "absolute path"),
        (_small_disk, "GiB free, and 1000000 are needed", "make room"),
        (_unknown_engine, "names vision", "compose.vision.yaml is not there"),
        (_no_cache, "MODEL_CACHE is /nowhere", "make it"),
        (_other_set_up, "vllm-chat of another set-up ('inference-sim')", "deploy/stop-all.sh"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_remedy(
    machine: Machine, breaks: Callable[[Machine], None], wrong: str, remedy: str
) -> None:
    breaks(machine)
    told = refusal(machine)
    assert wrong in told
    assert remedy in told


def test_a_port_that_somebody_listens_on_is_named(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        machine.settings(NGINX_HTTP_PORT=str(port), NGINX_HTTPS_PORT="2")
        assert f"port {port} (NGINX_HTTP_PORT) is taken" in refusal(machine)


def test_a_port_that_our_own_nginx_listens_on_is_free(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        machine.settings(NGINX_HTTP_PORT=str(port), NGINX_HTTPS_PORT=str(free_port()))
        machine.docker(ports=f"80/tcp -> 0.0.0.0:{port}")
        assert machine.run("start-all.sh", "--check").returncode == 0


def test_a_gpu_that_its_own_engine_uses_is_free(machine: Machine) -> None:
    machine.gpus("0, 4", "1, 30000")
    machine.program("docker", DOCKER_WITH_CHAT)
    assert machine.run("start-all.sh", "--check").returncode == 0


DOCKER_WITH_CHAT = """\
#!/bin/sh
case "$*" in
  *.State.Status*vllm-chat) echo running ;;
  *project*vllm-chat) echo inference-chat ;;
  'compose version --short') echo 2.26.1 ;;
  'info -f {{.DockerRootDir}}') echo /nowhere ;;
  'info -f '*) echo '{"nvidia":{}}' ;;
  version) ;;
  *) exit 1 ;;
esac
"""


def test_one_part_alone_needs_only_its_own_gpu(machine: Machine) -> None:
    machine.gpus("0, 30000", "1, 4")
    assert machine.run("start-all.sh", "--check", "--only", "chat").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "vision"], "there is no such part; there are text2sql chat, router and nginx"),
        (["--only"], "--only needs a name"),
        (["--timeout", "soon"], "--timeout is 'soon': write a whole number of seconds"),
        (["--simulate"], "unknown option --simulate"),
    ],
)
def test_a_wrong_option_is_told(machine: Machine, arguments: list[str], told: str) -> None:
    assert told in refusal(machine, *arguments)


@pytest.mark.parametrize("script", ["stop-all.sh", "status.sh", "start-all.sh"])
def test_every_script_says_that_docker_is_missing(machine: Machine, script: str) -> None:
    _no_docker(machine)
    done = machine.run(script)
    assert done.returncode == 1
    assert re.fullmatch(rf"{script}: docker is not installed: .*\n", done.stderr)


def test_checks_leave_nothing_behind(machine: Machine) -> None:
    before = sorted(machine.deploy.rglob("*"))
    machine.run("start-all.sh", "--check")
    assert sorted(machine.deploy.rglob("*")) == before


def _used_on_the_first_line_of_many(machine: Machine, **facts: str) -> None:
    """What a program says goes on for more than a pipe holds after the line that counts."""
    rest = "0000/tcp -> 0.0.0.0:0\n" * 10_000
    machine.docker(**{name: f"{first}\n{rest}" for name, first in facts.items()})


def test_a_long_answer_whose_first_line_counts_is_not_taken_for_a_failure(machine: Machine) -> None:
    _used_on_the_first_line_of_many(machine, runtimes='{"nvidia":{}}', ports="80/tcp -> 0.0.0.0:1")
    done = machine.run("start-all.sh", "--check")
    assert (done.returncode, done.stderr) == (0, ""), done
