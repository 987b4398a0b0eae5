"""`--help` on a terminal of 80 columns."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from router.cli import app
from router.cli.keys import keys_app

COMMANDS = {
    **{(name,): command for name, command in get_command(app).commands.items()},
    **{("keys", name): command for name, command in get_command(keys_app).commands.items()},
}


def help_of(*path: str) -> str:
    return CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}).stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_told_whole_on_80_columns(path):
    text = help_of(*path)
    for parameter in COMMANDS[path].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--"):
                assert re.search(rf"{option}(?![a-z-])", text), option
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_each_command_does_is_told_whole():
    assert "..." not in help_of().partition("Commands:")[2]
