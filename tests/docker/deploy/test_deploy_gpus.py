"""The real engines' files, with four GPUs that are not there and an image that stands in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import deploy_images as images
from support.deployment import Deployment, docker, objects
from support.docker import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]
MODELS = {
    "chat": "Qwen/Qwen2.5-7B-Instruct",
    "text2sql": "Snowflake/Arctic-Text2SQL-R1-7B",
}
ROUTER_IMAGE = "vllm-compose-router:local"


@pytest.fixture(scope="module")
def running(checkout: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Both engines on their GPUs, router and nginx."""
    checkout.succeed("stop-all.sh", "--purge")
    checkout.succeed("start-all.sh", "--sim", "--only", "router")  # builds the router's image
    checkout.succeed("stop-all.sh", "--purge")
    images.build_vllm(tmp_path_factory.mktemp("vllm"), ROUTER_IMAGE)
    checkout.write_env(CHAT_API_KEY="chat-secret", ATTENTION_BACKEND="FLASH_ATTN")
    checkout.succeed("start-all.sh", "--timeout", "90")
    yield checkout
    checkout.succeed("stop-all.sh", "--purge")
    (checkout.deploy / ".env").unlink()


def environment(container: str) -> dict[str, str]:
    """What the container's first process was started with."""
    text = docker("exec", container, "cat", "/proc/1/environ")
    return dict(line.partition("=")[::2] for line in text.split("\0") if line)


@pytest.mark.parametrize(("name", "gpu"), [("chat", "1"), ("text2sql", "0")])
def test_an_engine_sees_exactly_its_own_gpu(running: Deployment, name: str, gpu: str) -> None:
    assert environment(f"vllm-{name}")["NVIDIA_VISIBLE_DEVICES"] == gpu


def test_the_router_tells_each_engine_s_gpu_and_model(running: Deployment) -> None:
    rows = running.services()
    assert {name: (row["gpu"], row["models"]) for name, row in rows.items()} == {
        "chat": ("1", [MODELS["chat"]]),
        "text2sql": ("0", [MODELS["text2sql"]]),
    }
    assert all(row["healthy"] for row in rows.values())


@pytest.mark.parametrize("name", ["chat", "text2sql"])
def test_both_models_answer_through_nginx(running: Deployment, name: str) -> None:
    with running.client() as client:
        answer = client.chat.completions.with_raw_response.create(
            model=MODELS[name], messages=[{"role": "user", "content": "Hi"}], max_tokens=3
        )
    assert answer.headers["x-router-service"] == name


def test_only_the_router_knows_an_engine_s_key(running: Deployment) -> None:
    program = (
        "import urllib.request as r, urllib.error as e\n"
        "try: print(r.urlopen('http://127.0.0.1:8000/v1/models').status)\n"
        "except e.HTTPError as error: print(error.code)"
    )
    assert docker("exec", "vllm-chat", "python3", "-c", program) == "401"
    assert running.services()["chat"]["healthy"]


def test_vllm_is_given_its_flags(running: Deployment) -> None:
    started = docker("logs", "vllm-chat").splitlines()[0]
    for flag in ('"--max-model-len", "8192"', '"--attention-backend", "FLASH_ATTN"'):
        assert flag in started


def test_one_engine_is_replaced_alone(running: Deployment) -> None:
    def identities() -> dict[str, str]:
        rows = docker("ps", "--format", "{{.Names}} {{.ID}}").splitlines()
        return dict(row.split() for row in rows)

    before = identities()
    running.succeed("start-all.sh", "--only", "chat", MAX_MODEL_LEN="4096")
    after = identities()
    assert {name for name in before if after.get(name) != before[name]} == {"vllm-chat"}
    until(lambda: running.services()["chat"]["healthy"], "chat healthy again")
    running.succeed("start-all.sh")


def test_models_and_usage_outlive_a_stop(running: Deployment) -> None:
    said = running.succeed("stop-all.sh")
    kept = {"inference-state", "inference-model-cache"}
    assert kept <= objects()["volumes"]
    assert all(f"volume {name}" in said for name in kept)
    assert not [name for name in objects()["containers"] if name.startswith("vllm-")]
    running.succeed("start-all.sh", "--timeout", "90")


def test_simulated_engines_are_not_mixed_with_real_ones(running: Deployment) -> None:
    done = running.run("start-all.sh", "--sim")
    assert done.returncode == 1
    assert "of another set-up" in done.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DOCKER_HOST": "unix:///nowhere.sock"}, "the Docker engine does not answer"),
        ({"PATH": "/usr/bin:/bin:/usr/local/bin"}, "nvidia-smi is not there"),
        ({"CHAT_GPU": "7"}, "CHAT_GPU is 7, and this host has GPU 0, 1, 2, 3"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    running: Deployment, settings: dict[str, str], told: str
) -> None:
    done = running.run("start-all.sh", **settings)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
