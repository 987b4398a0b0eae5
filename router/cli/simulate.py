"""`router simulate`: a simulated vLLM server as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Annotated

import typer

from router.cli.loops import loop_factory
from router.simulator import SimulatorSettings, serve

_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="0 takes a free one."),
]
_ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="VLLM_API_KEY",
        help="Key to ask for under /v1. In the environment no process list shows it.",
    ),
]
_StartupDelay = Annotated[
    float,
    typer.Option(min=0, help="Seconds for which connections are refused, as while weights load."),
]
_DevMode = Annotated[bool, typer.Option(help="Whether /sleep, /pause and their kin exist.")]
_RequestIdHeaders = Annotated[
    bool,
    typer.Option("--request-id-headers", help="Send x-request-id with answers."),
]
_ForceIncludeUsage = Annotated[
    bool,
    typer.Option("--force-include-usage", help="Put usage on every chunk of every stream."),
]
_Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Served name, may be repeated; the first labels the metrics.",
        show_default="simulated",
    ),
]
_Seed = Annotated[int, typer.Option(help="Same seed and request: same answer.")]
_MaxModelLen = Annotated[int, typer.Option(min=1, help="Context length in tokens.")]
_AnswerTokens = Annotated[int, typer.Option(min=1, help="Mean length of an answer.")]
_MaxNumSeqs = Annotated[int, typer.Option(min=1, help="Sequences in a batch; others wait.")]
_MaxNumQueuedReqs = Annotated[
    int | None,
    typer.Option(
        min=0, help="Answer 503 above so many unfinished sequences.", show_default="no limit"
    ),
]
_Prefill = Annotated[float, typer.Option(help="Prompt tokens a second.")]
_Decode = Annotated[float, typer.Option(help="Tokens a second of a stream on its own.")]
_BatchSlowdown = Annotated[
    float,
    typer.Option(
        min=0, help="What each further sequence adds to a step, as a share of a lone step."
    ),
]
_KvCacheTokens = Annotated[int, typer.Option(min=1, help="Size of the KV cache.")]
_TimeScale = Annotated[float, typer.Option(help="Simulated seconds in a real one.")]


def simulate(
    *,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    api_key: _ApiKey = None,
    startup_delay: _StartupDelay = 0.0,
    dev_mode: _DevMode = True,
    request_id_headers: _RequestIdHeaders = False,
    force_include_usage: _ForceIncludeUsage = False,
    model: _Models = None,
    seed: _Seed = 0,
    max_model_len: _MaxModelLen = 8192,
    answer_tokens: _AnswerTokens = 128,
    max_num_seqs: _MaxNumSeqs = 256,
    max_num_queued_reqs: _MaxNumQueuedReqs = None,
    prefill_tokens_per_s: _Prefill = 20_000.0,
    decode_tokens_per_s: _Decode = 60.0,
    batch_slowdown: _BatchSlowdown = 0.01,
    kv_cache_tokens: _KvCacheTokens = 524_288,
    time_scale: _TimeScale = 1.0,
) -> None:
    """Run a simulated vLLM server: its API and its timing, without a GPU or a model.

    Its metrics, queue, prefix cache and errors are vLLM's. It ends on SIGTERM and Ctrl-C.
    """
    try:
        settings = SimulatorSettings(
            models=tuple(model or ("simulated",)),
            api_key=api_key,
            seed=seed,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_queued_reqs=max_num_queued_reqs,
            prefill_tokens_per_s=prefill_tokens_per_s,
            decode_tokens_per_s=decode_tokens_per_s,
            batch_slowdown=batch_slowdown,
            time_scale=time_scale,
            kv_cache_tokens=kv_cache_tokens,
            answer_tokens=answer_tokens,
            startup_delay_s=startup_delay,
            dev_mode=dev_mode,
            request_id_headers=request_id_headers,
            force_include_usage=force_include_usage,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve_until_signal(settings, host, port))
    except OSError as error:
        print(f"router simulate: cannot listen on {host}:{port}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _serve_until_signal(settings: SimulatorSettings, host: str, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serve(settings, host, port) as engine:
        names = ", ".join(settings.models)
        print(f"simulated engine for {names} on {engine.url} (pid {os.getpid()})", flush=True)
        await stopped.wait()
