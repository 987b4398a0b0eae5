"""What one simulated engine is: its names, its limits and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """One engine. Rates are those of the simulated GPU; `time_scale` speeds the clock up.

    Attributes:
        models: served names; the first is the one that metrics and unnamed requests use.
        api_key: bearer key asked for under `/v1`; None: open.
        seed: with the same seed, the same requests get the same texts.
        max_model_len: context length in tokens, prompt and answer together.
        max_num_seqs: sequences in a batch; the others wait.
        max_num_queued_reqs: unfinished sequences above which a request is answered 503;
            as in vLLM the running ones count too. None: no limit.
        max_num_batched_tokens: prompt tokens that one step may take in (chunked prefill).
        prefill_tokens_per_s: prompt tokens a second.
        decode_tokens_per_s: tokens a second of a stream that has the engine to itself.
        batch_slowdown: what each further sequence adds to a step, as a share of a lone step:
            with 0.02 a batch of 51 makes steps twice as long.
        time_scale: simulated seconds in one real second.
        kv_cache_tokens: size of the KV cache; what no sequence uses keeps prefixes.
        block_size: tokens in one block of the KV cache.
        answer_tokens: mean length of an answer that nothing else cuts short.
        embedding_dim: length of an embedding.
        startup_delay_s: real seconds during which the port is taken but refuses connections.
        keep_alive_s: idle connections are closed after this many seconds.
        dev_mode: whether `/sleep`, `/pause` and their kin exist.
        request_id_headers: whether answers carry `x-request-id`.
        force_include_usage: whether every chunk of every stream carries usage.
        max_body_bytes: largest request body taken in.
    """

    models: tuple[str, ...] = ("simulated",)
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    max_model_len: int = 8192
    max_num_seqs: int = 256
    max_num_queued_reqs: int | None = None
    max_num_batched_tokens: int = 8192
    prefill_tokens_per_s: float = 20_000.0
    decode_tokens_per_s: float = 60.0
    batch_slowdown: float = 0.01
    time_scale: float = 1.0
    kv_cache_tokens: int = 524_288
    block_size: int = 16
    answer_tokens: int = 128
    embedding_dim: int = 64
    startup_delay_s: float = 0.0
    keep_alive_s: float = 5.0
    dev_mode: bool = True
    request_id_headers: bool = False
    force_include_usage: bool = False
    max_body_bytes: int = 128 * 1024 * 1024

    def __post_init__(self) -> None:
        if not self.models or not all(self.models):
            raise ValueError("models: at least one served name is needed, and none may be empty")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


_POSITIVE = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "time_scale",
    "kv_cache_tokens",
    "block_size",
    "answer_tokens",
    "embedding_dim",
    "keep_alive_s",
)
_NOT_NEGATIVE = ("batch_slowdown", "startup_delay_s")
