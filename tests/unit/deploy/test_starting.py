"""What start-all.sh does before Compose, and what it says where Compose fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.deploy.machine import DOCKER, Machine

# Compose starts nothing here: it says what is in the file `up` and fails.
STARTING = """\
  'compose --env-file '*' up '*) cat "$facts/up" >&2; exit 1 ;;
  'compose --env-file '* | 'network inspect '* | 'volume create '*) ;;
"""


@pytest.fixture
def starting(machine: Machine) -> Machine:
    first = "  version)"
    text = DOCKER.replace(first, STARTING + first).removesuffix(" 2>/dev/null\n") + "\n"
    machine.program("docker", text)
    machine.docker(up="no such thing")
    return machine


def secret(machine: Machine, name: str) -> Path:
    return machine.deploy / ".run" / "secrets" / f"{name}-api-key"


def test_the_key_of_an_engine_that_is_not_started_stays_as_it_is(starting: Machine) -> None:
    for name in ("chat", "text2sql"):
        secret(starting, name).parent.mkdir(parents=True, exist_ok=True)
        secret(starting, name).write_text("old\n")
    starting.settings(CHAT_API_KEY="new-chat", TEXT2SQL_API_KEY="new-text2sql")
    starting.run("start-all.sh", "--only", "chat")
    assert secret(starting, "chat").read_text() == "new-chat\n"
    assert secret(starting, "text2sql").read_text() == "old\n"


def test_an_engine_without_a_key_any_more_has_no_file_of_it(starting: Machine) -> None:
    secret(starting, "chat").parent.mkdir(parents=True)
    secret(starting, "chat").write_text("old\n")
    starting.run("start-all.sh", "--only", "chat")
    assert not secret(starting, "chat").exists()


def test_a_folder_of_secrets_that_is_there_is_closed_to_others(starting: Machine) -> None:
    run = starting.deploy / ".run"
    run.mkdir()
    run.chmod(0o755)
    starting.run("start-all.sh", "--only", "chat")
    assert run.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Pool overlaps with other one on this address space", "ROUTER_ADDRESS and NGINX_ADDRESS"),
        ("failed to set up container networking: Address already in use", "deploy/stop-all.sh"),
        ("no configured subnet or ip-range contain the IP address 10.0.0.2", "within FRONT_SUBNET"),
        ("something else", "see the lines above"),
    ],
)
def test_what_compose_says_is_shown_with_what_to_do(
    starting: Machine, said: str, remedy: str
) -> None:
    starting.docker(up=said)
    done = starting.run("start-all.sh", "--only", "nginx")
    assert done.returncode == 1
    assert said in done.stderr
    assert remedy in done.stderr
