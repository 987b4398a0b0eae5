"""The command `router`: one small file a subcommand."""

from __future__ import annotations

from typing import Annotated

import typer

from router import __version__
from router.cli.check import check
from router.cli.demo import demo
from router.cli.keys import keys_app
from router.cli.serve import serve
from router.cli.simulate import simulate
from router.cli.top import top
from router.cli.usage import usage

app = typer.Typer(
    name="router",
    help="One OpenAI-compatible endpoint in front of many vLLM servers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its tables cut the names of options on 80 columns
    pretty_exceptions_enable=False,
)
# Said in full: what is taken from a docstring is cut to a line.
for command, short_help in (
    (serve, "Run the router."),
    (check, "Validate the configuration and print what it would serve."),
    (demo, "Two simulated engines, the router and one streamed chat."),
    (simulate, "Run a simulated vLLM server."),
    (usage, "Tokens and requests used and left, a day and a month."),
    (top, "Watch a router in the terminal."),
):
    app.command(short_help=short_help)(command)
app.add_typer(keys_app, short_help="Make, list and revoke keys of clients.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"router {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()
