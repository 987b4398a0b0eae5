"""Services that other launchers publish as files, in the daemon as it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.http import call, chat
from support.upstream import Send
from support.wire import chat_answer

PATH = "/v1/chat/completions"


@pytest.fixture
def router(start_daemon, tmp_path):
    """A router without services of its own, and the folder that it watches."""
    folder = tmp_path / "services.d"
    folder.mkdir()
    config = {
        "discovery": {"files": str(folder)},
        "health": {"interval_s": 1},
    }
    return start_daemon(config), folder


def publish(folder: Path, name: str, url: str) -> None:
    hidden = folder / f".{name}.new"
    hidden.write_text(f"- {{name: {name}, url: '{url}', models: [tiny]}}\n")
    hidden.rename(folder / f"{name}.yaml")


def test_a_file_makes_a_service_and_its_end_ends_it(router, start_upstream):
    daemon, folder = router
    engine = start_upstream(lambda _: [Send(chat_answer("hi"))])
    publish(folder, "one", engine.url)
    daemon.until(lambda: daemon.healthy_count() == 1, "healthy")
    assert daemon.services()["one"]["source"] == "files"
    assert call(daemon.port, "POST", PATH, chat()).status == 200
    (folder / "one.yaml").unlink()
    daemon.until(lambda: not daemon.services(), "gone")
    assert call(daemon.port, "POST", PATH, chat()).status == 404


def test_a_bad_file_leaves_what_it_said_and_what_others_say(router, start_upstream):
    daemon, folder = router
    engine = start_upstream()
    publish(folder, "one", engine.url)
    publish(folder, "two", engine.url)
    daemon.until(lambda: daemon.healthy_count() == 2, "healthy")
    (folder / "one.yaml").write_text("- name: one\n  url: nonsense\n")
    daemon.until(lambda: "services_file_refused" in daemon.log, "told")
    line = next(line for line in daemon.log.splitlines() if "services_file_refused" in line)
    assert '"line": 2' in line
    assert '"key": "[0].url"' in line
    assert daemon.healthy_count() == 2
    assert daemon.metric("router_discovery_healthy", source="files") == 0
    assert daemon.metric("router_discovery_services", source="files") == 2


def test_a_name_of_the_configuration_is_the_configurations(router, start_upstream):
    daemon, folder = router
    engine = start_upstream()
    publish(folder, "one", engine.url)
    daemon.until(lambda: daemon.healthy_count() == 1, "healthy")
    row = {"name": "one", "url": engine.url, "models": ["tiny"], "gpu": "mine"}
    discovery = {"files": str(folder)}
    daemon.write({"discovery": discovery, "services": [row]})
    daemon.until(lambda: daemon.services()["one"]["source"] == "yaml", "taken over")
    daemon.write({"discovery": discovery})
    daemon.until(lambda: daemon.services()["one"]["source"] == "files", "given back")
