"""The small fleet that the tests of the contract's paths ask: its models and its paths."""

from __future__ import annotations

from support.daemon import Daemon
from support.http import Response, call, chat

BIG, OTHER, SQL = "Qwen/Qwen2.5-7B-Instruct", "meta/Llama-3-8B", "Snowflake/Arctic-Text2SQL-R1-7B"
TWIN_A, TWIN_B = "one/twin", "two/twin"
PATH = "/v1/chat/completions"
BOTH_WAYS = {
    "/chat/completions": "/v1/chat/completions",
    "/completions": "/v1/completions",
    "/embeddings": "/v1/embeddings",
}
ONE_WAY = (
    "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/rerank", "/v1/score",
    "/pooling", "/classify", "/tokenize", "/detokenize",
)  # fmt: skip
FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations")
INFERENCE = (*BOTH_WAYS, *BOTH_WAYS.values(), *ONE_WAY, *FORMS)


def ask(router: Daemon, path: str = PATH, model: str = BIG, *headers: tuple[str, str]) -> Response:
    """Send a small chat body to a path and read the whole answer."""
    return call(router.port, "POST", path, chat(model), headers)
