"""The table of `router top`: what it shows of a picture, in which order, and what keys change."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from router.cli.top_columns import COLUMNS, TITLES, printable
from router.cli.top_keys import keys_of
from router.cli.top_source import Picture, picture
from router.cli.top_view import View, in_order, pressed, render

PLAIN = View()
PLACE = {title: place for place, title in enumerate(TITLES)}


def row(name: str, **more) -> dict:
    return {
        "name": name, "state": "healthy", "models": ["org/m"], "gpu": None, "in_flight": 0,
        "max_concurrency": None, "last_error": None, "queued": 0, "ttft": 0.0,
        "response_time": 0.0, "tokens_per_second": 0.0, "request_count": 0, "error_count": 0,
        "prompt_tokens": 0, "completion_tokens": 0, **more,
    }  # fmt: skip


def shown(
    *rows: dict, view: View = PLAIN, height: int | None = None, organizations=None, width: int = 200
) -> str:
    """The screen as text."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height or 100, color_system=None)
    told = Picture(rows, organizations, 1, 3725.0)
    url = "http://router:8000"
    console.print(render(told, view, url=url, width=width, height=height))
    return out.getvalue()


def order(*rows: dict, **view) -> list[str]:
    found = in_order(Picture(rows, None, 0, 0.0), View(**view))
    return [each["name"] for each in found]


def test_the_two_pages_are_joined_by_name():
    found = picture(
        {"services": [{"name": "a", "gpu": "1"}]},
        {"services": [{"name": "a", "ttft": 2.0}], "healthy_services": 1, "uptime_s": 5},
    )
    assert found.services == [{"name": "a", "ttft": 2.0, "gpu": "1"}]
    assert found.organizations is None


def test_a_service_that_only_one_page_knows_is_shown_all_the_same():
    page = {"services": [], "healthy_services": 0, "uptime_s": 5}
    found = picture({"services": [{"name": "new", "state": "loading"}]}, page)
    assert "new" in shown(*found.services)


def test_text_is_sorted_from_a_and_numbers_from_the_largest():
    rows = row("b", request_count=1), row("a", request_count=2), row("c", request_count=3)
    assert order(*rows, column=PLACE["service"]) == ["a", "b", "c"]
    assert order(*rows, column=PLACE["requests"]) == ["c", "a", "b"]


def test_reversed_is_the_other_way_round():
    rows = row("b", request_count=1), row("a", request_count=2)
    assert order(*rows, column=PLACE["requests"], is_reversed=True) == ["b", "a"]
    assert order(*rows, column=PLACE["service"], is_reversed=True) == ["b", "a"]


def test_the_worst_states_come_first():
    states = "healthy", "unhealthy", "loading", "ejected"
    rows = [row(state, state=state) for state in states]
    assert order(*rows, column=PLACE["state"]) == ["unhealthy", "ejected", "loading", "healthy"]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda each: each.title)
def test_every_column_can_be_sorted_and_shown_for_a_bare_row(column):
    assert order({"name": "a"}, {"name": "b"}, column=PLACE[column.title])
    assert shown({"name": "a", "state": "healthy"}, view=View(PLACE[column.title]))


def test_a_columns_letter_sorts_by_it_and_once_more_turns_it_round():
    view = pressed(View(), "t")
    assert (COLUMNS[view.column].title, view.is_reversed) == ("tok/s", False)
    assert pressed(view, "t").is_reversed


def test_arrows_go_to_the_next_column_and_around():
    assert pressed(View(), "right").column == 1
    assert pressed(View(), "left").column == len(COLUMNS) - 1


def test_no_two_columns_have_one_letter_and_none_is_q():
    letters = [column.key for column in COLUMNS]
    assert len(set(letters)) == len(letters)
    assert not set(letters) & {"q", "-"}


def test_another_key_changes_nothing():
    assert pressed(View(3, True, 2), "X") == View(3, True, 2)


def test_what_does_not_fit_is_counted_and_scrolled_to():
    rows = [row(f"service-{number:02}") for number in range(40)]
    screen = shown(*rows, height=20)
    assert "service-00" in screen
    assert "service-39" not in screen
    assert "of 40 services" in screen
    assert "service-39" in shown(*rows, height=20, view=View(top=39))


@pytest.mark.parametrize("height", [8, 12, 20, 60])
def test_the_screen_is_never_higher_than_the_terminal(height):
    rows = [row(f"service-{number:02}") for number in range(40)]
    assert len(shown(*rows, height=height, view=View(error="gone")).splitlines()) <= height


def test_a_limit_is_shown_beside_what_is_in_flight():
    assert " 3/6 " in shown(row("a", in_flight=3, max_concurrency=6))


def test_the_last_error_is_shown_of_what_is_not_healthy():
    assert "refused" in shown(row("a", state="unhealthy", last_error="refused"))
    assert "refused" not in shown(row("a", last_error="refused"))


def test_organizations_are_shown_with_their_limits():
    one = {
        "id": "acme", "tokens_today": 950, "tokens_month": 5, "requests_today": 7,
        "limits": {"daily_tokens": 1000, "monthly_tokens": None, "daily_requests": 10},
    }  # fmt: skip
    screen = shown(row("a"), organizations=[one])
    assert "acme" in screen
    assert "1,000  95%" in screen
    assert "no limit" in screen


BUSY = row(
    "text2sql-0", models=["Snowflake/Arctic-Text2SQL-R1-7B"], gpu="0", in_flight=12,
    max_concurrency=64, queued=1234, ttft=12.345, response_time=123.456,
    tokens_per_second=12345.6, request_count=1_234_567, error_count=12_345,
    prompt_tokens=12_345_678_901, completion_tokens=1_234_567_890,
)  # fmt: skip
DOWN = row("chat-of-a-long-name-0", state="unhealthy", last_error="cannot connect: " + "why " * 50)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("column", COLUMNS, ids=lambda each: each.title)
def test_nothing_that_is_shown_of_names_states_and_figures_is_cut(width, column):
    screen = shown(BUSY, DOWN, view=View(PLACE[column.title]), width=width)
    table = screen.splitlines()[1:]
    assert all(len(line) <= width for line in table)
    busy = next(line for line in table if "text2sql-0" in line)
    assert "healthy" in busy
    assert "…" not in busy.replace("R1-…", "")
    assert any("chat-of-a-long-name-0 " in line and " unhealthy " in line for line in table)
    assert column.title in table[0]


def test_on_80_columns_the_least_important_are_left_out_and_the_error_gets_the_rest():
    screen = shown(BUSY, DOWN, width=80)
    for told in ("12/64", "1,234", "12,345.6", "cannot connect: why"):
        assert told in screen
    for title in ("prompt tok", "answer tok", "gpu", "time s"):
        assert title not in screen


def test_on_80_columns_the_model_is_shown_while_all_is_well():
    screen = shown(row("chat-0", models=["Qwen/Qwen2.5-7B"]), row("chat-1"), width=80)
    assert "Qwen2.5-7B" in screen
    assert "in flight" in screen


def test_on_120_columns_every_delay_is_shown():
    screen = shown(row("chat-0"), row("chat-1"), width=120)
    for title in ("gpu", "ttft s", "time s", "requests", "errors"):
        assert title in screen


def test_on_80_columns_figures_of_organizations_are_whole():
    one = {
        "id": "acme", "tokens_today": 9_500_000, "tokens_month": 123_456_789,
        "requests_today": 98_765, "limits": {
            "daily_tokens": 10_000_000, "monthly_tokens": 300_000_000, "daily_requests": 100_000,
        },
    }  # fmt: skip
    screen = shown(row("a"), organizations=[one], width=80)
    for told in ("acme", "9,500,000", "95%", "123,456,789", "41%", "98,765", "99%"):
        assert told in screen
    assert "…" not in screen


def test_how_to_quit_is_told_on_80_columns():
    assert "q quit" in shown(row("a"), width=80, height=24)


def test_a_key_that_is_not_the_admin_key_is_told():
    assert "not this router's admin key" in shown(row("a"), view=View(has_key=True))


@pytest.mark.parametrize("organizations", [None, []])
def test_without_a_key_or_with_the_right_one_no_key_is_spoken_of(organizations):
    view = View(has_key=organizations is not None)
    assert "admin key" not in shown(row("a"), view=view, organizations=organizations)


def test_a_picture_that_is_old_says_so():
    assert "Not up to date: gone" in shown(row("a"), view=View(error="gone"))


def test_an_engines_words_cannot_steer_the_terminal():
    screen = shown(
        row("a", models=["org/\x1b]0;title\x07"], state="unhealthy", last_error="\x1b[2J")
    )
    assert "\x1b" not in screen
    assert "\x07" not in screen


def test_an_engines_words_are_no_markup():
    assert "[red]" in shown(row("a", models=["[red]"]))


def test_printable_keeps_letters_of_every_script():
    assert printable("Größe 大") == "Größe 大"


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOC\x1bOD", ["right", "left"]),
        (b"n\x1b[Cq", ["n", "right", "q"]),
        (b"\x1b[5~r", ["r"]),
        (b"\x1b[1;5Cr", ["r"]),
        (b"\xff", ["\N{REPLACEMENT CHARACTER}"]),
    ],
)
def test_keys_are_read_out_of_what_a_terminal_sends(data, keys):
    assert list(keys_of(data)) == keys
