"""A service whose address is the router's own."""

from __future__ import annotations

import signal

from support.daemon import Daemon, free_port, service


def states(router: Daemon) -> dict[str, str]:
    return {name: row["state"] for name, row in router.services().items()}


def test_the_router_is_never_an_engine_of_its_own(tmp_path):
    down = service("down", f"http://127.0.0.1:{free_port()}")
    with Daemon(tmp_path, {"services": [down]}, healthy=0) as router:
        router.write({"services": [down, service("loop", router.url)]})
        router.signal(signal.SIGHUP)
        router.until(lambda: states(router).get("loop") == "unhealthy", "found out")
        assert "this router itself" in router.services()["loop"]["last_error"]
        assert "this router itself" in router.log
