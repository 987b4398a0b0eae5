"""The functions that the operator's scripts share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from unit.deploy.machine import REPOSITORY, Machine

SCRIPTS = sorted([*(REPOSITORY / "deploy").glob("*.sh"), *(REPOSITORY / "nginx").glob("*.sh")])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("NAME=two words", "two words"),
        ("NAME=value # a remark", "value"),
        ("NAME=with#hash", "with#hash"),
        ("NAME=   ", ""),
        ("NAME= # nothing", ""),
        ('NAME="quoted # no remark" # remark', "quoted # no remark"),
        ("NAME='single'", "single"),
        ("NAME=windows\r", "windows"),
        ("NAME=first\nNAME=last", "last"),
        ("OTHER_NAME=other", ""),
        ("# NAME=remark", ""),
    ],
)
def test_a_setting_is_read_as_compose_reads_it(machine: Machine, line: str, value: str) -> None:
    (machine.deploy / ".env").write_text(f"{line}\n")
    assert machine.shell("setting NAME") == value


def test_an_empty_setting_is_its_default(machine: Machine) -> None:
    (machine.deploy / ".env").write_text("NAME=\n")
    assert machine.shell("setting NAME default") == "default"


def test_the_environment_goes_before_the_file(machine: Machine) -> None:
    (machine.deploy / ".env").write_text("NAME=file\n")
    assert machine.shell("export NAME=environment; setting NAME") == "environment"


@pytest.mark.parametrize(
    ("log", "phase"),
    [
        ("", "starting"),
        ("INFO api server version 0.32.0", "starting"),
        ("model-00001-of-00004.safetensors: 12%\nDownloading shards", "downloading"),
        ("Fetching 14 files:  21%", "downloading"),
        ("Downloading shards\nTime spent downloading weights for X: 3.1 seconds", "loading"),
        ("INFO Starting to load model Qwen/Qwen2.5-7B-Instruct...", "loading"),
        ("Starting to load model X...\nCapturing CUDA graphs (decode)", "warming up"),
    ],
)
def test_an_engine_s_log_tells_how_far_it_is(machine: Machine, log: str, phase: str) -> None:
    assert machine.shell("phase_of_log", log) == f"{phase}\n"


CONTAINER = """\
#!/bin/sh
case "$*" in *RestartCount*) echo '{facts}' ;; 'logs '*) echo 'Starting to load model X' ;; esac
"""


@pytest.mark.parametrize(
    ("facts", "phase"),
    [
        ("running healthy 0", "ready"),
        ("running none 0", "ready"),
        ("running starting 0", "loading"),
        ("running starting 1", "failed"),
        ("running unhealthy 0", "unhealthy"),
        ("restarting starting 2", "failed"),
        ("exited starting 0", "failed"),
        ("created none 0", "starting"),
    ],
)
def test_a_container_s_state_is_its_phase(machine: Machine, facts: str, phase: str) -> None:
    machine.program("docker", CONTAINER.format(facts=facts))
    assert machine.shell("phase some-container") == f"{phase}\n"


def test_waiting_ends_in_time_and_says_how_far_it_came(machine: Machine) -> None:
    machine.program("docker", CONTAINER.format(facts="running starting 0"))
    told = machine.shell("await chat vllm-chat 0 2>&1 || echo gave up")
    assert "chat             loading" in told
    assert "is not ready in time (still loading; --timeout allows more)" in told
    assert told.endswith("gave up\n")


def test_one_that_stays_unhealthy_has_failed(machine: Machine) -> None:
    machine.program("docker", CONTAINER.format(facts="running unhealthy 0"))
    told = machine.shell("UNHEALTHY_S=0; await chat vllm-chat 60 2>&1 || echo gave up")
    assert "chat failed; the last it said" in told
    assert told.endswith("gave up\n")


def test_a_failed_engine_s_last_words_are_shown(machine: Machine) -> None:
    machine.program("docker", CONTAINER.format(facts="exited none 0"))
    told = machine.shell("await chat vllm-chat 60 2>&1 || echo gave up")
    assert "chat failed; the last it said" in told
    assert "    Starting to load model X\n" in told
    assert "deploy/logs.sh chat" in told


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_no_complaint(script: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [shellcheck, "-x", "-P", REPOSITORY, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith(("#!/usr/bin/env bash\n", "#!/bin/sh\n"))


def test_a_self_signed_certificate_is_for_the_names_given(machine: Machine, tmp_path: Path) -> None:
    script = "../nginx/self-signed.sh"
    assert machine.run(script, str(tmp_path / "tls"), "gpu.example", "10.0.0.5").returncode == 0
    text = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "tls/cert.pem", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("DNS:gpu.example", "DNS:localhost", "IP Address:10.0.0.5", "IP Address:127.0.0.1"):
        assert name in text
    assert (tmp_path / "tls/key.pem").stat().st_mode & 0o077 == 0


def test_a_certificate_that_is_there_is_kept(machine: Machine, tmp_path: Path) -> None:
    script = "../nginx/self-signed.sh"
    machine.run(script, str(tmp_path))
    before = (tmp_path / "cert.pem").read_bytes()
    done = machine.run(script, str(tmp_path))
    assert done.returncode == 1
    assert "has a certificate or a key already" in done.stderr
    assert (tmp_path / "cert.pem").read_bytes() == before
