"""`router demo`: two simulated engines, the router, and one chat that streams to the terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import msgspec
import typer
from rich.console import Console

from router.cli.loops import loop_factory
from router.config.settings import ServerSettings, ServiceSettings, Settings
from router.daemon import Daemon
from router.log import configure_logging
from router.simulator import SimulatorSettings
from router.simulator import serve as serve_engine

_MODEL = "demo/simulated-7b"
_QUESTION = "What does a router in front of GPUs do?"
_HEALTHY_WITHIN_S = 10.0
_POLL_S = 0.02


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


def demo(*, once: bool = typer.Option(False, help="End after the streamed chat.")) -> None:
    """Start two simulated engines and the router on loopback, and stream one chat.

    It then stays up and says how to try it; Ctrl-C ends all of it.
    """
    configure_logging("console", "error")
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_demo(Console(highlight=False), once=once))
    except (OSError, aiohttp.ClientError) as error:
        print(f"router demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _demo(console: Console, *, once: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(serve_engine(SimulatorSettings((_MODEL,), seed=seed)))
            for seed in (1, 2)
        ]
        settings = Settings(
            server=ServerSettings(host="127.0.0.1", port=0),
            services=tuple(
                ServiceSettings(name=f"sim-{gpu}", url=engine.url, group="sim", gpu=str(gpu))
                for gpu, engine in enumerate(engines)
            ),
            aliases={"gpt-4o": _MODEL},
        )
        daemon = Daemon(settings, lambda: settings)
        url = await stack.enter_async_context(daemon.serving())
        await _until_healthy(daemon)
        console.print(f"[bold]two simulated engines[/] {engines[0].url} {engines[1].url}")
        console.print(f"[bold]router[/] {url}\n")
        await _stream_one(console, url)
        if not once:
            _print_how(console, url)
            await stopped.wait()


async def _until_healthy(daemon: Daemon) -> None:
    async with asyncio.timeout(_HEALTHY_WITHIN_S):
        while not all(service.is_healthy for service in daemon.fleet.services):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


async def _stream_one(console: Console, url: str) -> None:
    console.print(f"[bold]you[/]    {_QUESTION}")
    console.print("[bold]engine[/] ", end="")
    body = {
        "model": "gpt-4o",
        "stream": True,
        "max_tokens": 48,
        "messages": [{"role": "user", "content": _QUESTION}],
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/chat/completions", json=body) as answer,
    ):
        answer.raise_for_status()
        async for text in _deltas(answer.content):
            console.print(text, end="", markup=False, soft_wrap=True)
            console.file.flush()
    told = answer.headers
    console.print(f"\n\n[dim]{told['x-router-service']} · {told['server-timing']}[/]")


async def _deltas(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    async for line in content:
        data = line.removeprefix(b"data: ").strip()
        if line.startswith(b"data: ") and data != b"[DONE]":
            for choice in msgspec.json.decode(data, type=_Chunk).choices:
                yield choice.delta.content or ""


def _print_how(console: Console, url: str) -> None:
    console.print(
        f"""
[bold]Try it[/]
  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4o", "stream": true, "messages": [{{"role": "user", "content": "Hi"}}]}}'

[bold]From Python[/]
  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  chat = client.chat.completions.create(
      model="gpt-4o", messages=[{{"role": "user", "content": "Hi"}}], stream=True)
  for chunk in chat:
      print(chunk.choices[0].delta.content or "", end="", flush=True)

[bold]Look at[/]
  {url}/dashboard
  {url}/health    {url}/services    {url}/stats    {url}/metrics

Ctrl-C ends all of it.""",
        markup=True,
        soft_wrap=True,
    )
