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
    pretty_exceptions_enable=False,
)
for command in (serve, check, demo, simulate, usage, top):
    app.command()(command)
app.add_typer(keys_app)


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
