"""The table of inference paths: what may cross, and in which form it speaks."""

from __future__ import annotations

import pytest

from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS, KINDS, Dialect

CONTRACT = {
    "/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions",
    "/v1/embeddings", "/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
    "/v1/rerank", "/v1/score", "/pooling", "/classify", "/tokenize", "/detokenize",
    "/v1/audio/transcriptions", "/v1/audio/translations",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(CONTRACT))
def test_every_path_of_the_contract_is_there(path):
    assert path in INFERENCE_PATHS


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/v1/load_lora_adapter", "/sleep", "/wake_up", "/metrics", "/v1/models", "/"],
)
def test_no_other_path_of_an_engine_is_there(path):
    assert path not in INFERENCE_PATHS


def test_every_path_is_there_with_and_without_its_version():
    assert {path.removeprefix("/v1") for path in INFERENCE_PATHS} <= INFERENCE_PATHS.keys()
    assert len(INFERENCE_PATHS) == 2 * len(BY_UPSTREAM)


@pytest.mark.parametrize("path", ["/pooling", "/classify", "/tokenize", "/detokenize"])
def test_what_an_engine_serves_without_a_version_is_sent_without_one(path):
    assert INFERENCE_PATHS["/v1" + path].upstream == path


def test_both_spellings_are_sent_to_the_same_path():
    for path, row in INFERENCE_PATHS.items():
        assert path.removeprefix("/v1") == row.upstream.removeprefix("/v1")


def test_kinds_are_distinct():
    assert len(set(KINDS)) == len(KINDS) == len(BY_UPSTREAM)


def test_the_two_paths_of_messages_alone_speak_anthropic():
    speaking = {row.upstream for row in BY_UPSTREAM.values() if row.dialect is Dialect.ANTHROPIC}
    assert speaking == {"/v1/messages", "/v1/messages/count_tokens"}


def test_audio_alone_takes_forms():
    forms = {row.upstream for row in BY_UPSTREAM.values() if row.multipart}
    assert forms == {"/v1/audio/transcriptions", "/v1/audio/translations"}
