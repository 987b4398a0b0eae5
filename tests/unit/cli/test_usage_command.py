"""`router usage`: what it reads, what it prints, how it ends."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from router.cli.usage import table
from router.ledger import Kind, Period, WindowUsage, day_of, month_of
from router.storage import Database, StoredWindow, UsageTable

Run = Callable[..., Result]


@pytest.fixture
def used(folder: Path) -> None:
    """700 tokens and 3 requests of acme, 100 more tokens reserved; 5 tokens of nobody's quota."""
    day, month = day_of(time.time()), month_of(time.time())
    with Database.open(folder / "state" / "router.db") as database:
        UsageTable(database).put(
            [
                StoredWindow("acme", "tokens", "day", day.start, day.end, 700, 20, 100),
                StoredWindow("acme", "tokens", "month", month.start, month.end, 12_700, 20, 100),
                StoredWindow("acme", "requests", "day", day.start, day.end, 3, 0, 0),
                StoredWindow("acme", "tokens", "day", 0, 86_400, 999, 0, 0),
                StoredWindow("other", "tokens", "day", day.start, day.end, 5, 0, 0),
            ]
        )
        database.flushed().result(timeout=10)


@pytest.mark.usefixtures("used")
def test_windows_are_told_in_the_form_of_the_api(run: Run) -> None:
    (acme,) = json.loads(run("usage", "--json", "--org", "acme").stdout)
    assert acme["organization"] == "acme"
    day, month, requests = acme["windows"]
    numbers = {key: day[key] for key in ("limit", "used", "reserved", "remaining")}
    assert numbers == {"limit": 1000, "used": 700, "reserved": 100, "remaining": 200}
    assert (day["kind"], day["period"]) == ("tokens", "day")
    assert day["resets_at"].endswith("T00:00:00Z")
    assert (month["limit"], month["used"], month["remaining"]) == (None, 12_700, None)
    assert (requests["kind"], requests["used"], requests["remaining"]) == ("requests", 3, 99_997)


@pytest.mark.usefixtures("used")
def test_the_table_has_every_organization(run: Run) -> None:
    result = run("usage")
    assert result.exit_code == 0
    for shown in ("acme", "other", "700", "12,700", "200", "tokens this month", "no limit"):
        assert shown in result.stdout


@pytest.mark.usefixtures("used")
def test_what_cannot_be_known_is_an_error_that_names_what_can(run: Run) -> None:
    result = run("usage", "--org", "acmee")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "acme, other" in result.stderr


def test_an_organization_that_only_a_key_names_has_the_default_limits(run: Run) -> None:
    run("keys", "create", "--org", "beta")
    (beta,) = json.loads(run("usage", "--json", "--org", "beta").stdout)
    assert [window["limit"] for window in beta["windows"]] == [10_000_000, 300_000_000, 100_000]


def test_without_a_database_it_fails_and_makes_none(run: Run, folder: Path) -> None:
    result = run("usage")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--state-dir" in result.stderr
    assert not (folder / "state").exists()


def test_a_database_that_cannot_be_read_fails(run: Run, folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "router.db").write_bytes(b"no database" * 500)
    result = run("usage")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be read" in result.stderr


def test_a_ledger_in_memory_is_only_in_the_daemon(run: Run, folder: Path) -> None:
    with (folder / "backends.yaml").open("a") as config:
        config.write("ledger: {url: 'memory://'}\n")
    assert run("usage").exit_code == 2


@pytest.mark.usefixtures("used")
def test_the_database_is_where_the_state_folder_is(
    run: Run,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    options = ("--config", str(folder / "backends.yaml"), "--state-dir", str(folder))
    assert "12,700" in run("usage", *options).stdout


@pytest.mark.parametrize("width", [80, 120])
def test_figures_are_whole_on_a_narrow_terminal(width: int) -> None:
    end = day_of(0).end
    window = WindowUsage(
        Kind.TOKENS, Period.MONTH, 10_000_000_000, 9_123_456_789, 1_234_567, 875_308_644, end
    )
    name = "an-organization-of-a-rather-long-name"
    out = io.StringIO()
    Console(file=out, width=width).print(table({name: [window], "b": [window]}, width))
    for figure in ("10,000,000,000", "9,123,456,789", "1,234,567", "875,308,644"):
        assert out.getvalue().count(figure) == 2
    assert "…" not in out.getvalue()
