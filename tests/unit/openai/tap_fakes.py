"""Recorded answers, their usage by a full parse, and ways to feed them to a tap."""

from __future__ import annotations

import itertools
import json
from typing import Any

from router.model import Usage
from router.openai.usage import Tap
from support.recordings import FOLDER, Recording, load

GLOBS = ("chat*", "comp*", "emb*", "messages*", "responses*", "rerank*", "score*", "pooling*")


def recorded() -> list[Recording]:
    """Every recorded answer of a path that costs tokens."""
    files = {
        file
        for folder in (FOLDER / "http", *(FOLDER / "variants").iterdir())
        for glob in GLOBS
        for file in folder.glob(f"{glob}.response.http")
    }
    found = [load(file) for file in sorted(files)]
    return [recording for recording in found if recording.kind == "answer"]


RECORDED = recorded()
UNARY = [each for each in RECORDED if each.body.lstrip().startswith(b"{")]
STREAMS = [each for each in RECORDED if each not in UNARY]


def documents(body: bytes) -> list[Any]:
    """The JSON objects of an answer: its body, or the data of its events."""
    if body.lstrip().startswith(b"{"):
        return [json.loads(body)]
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line.strip() != b"[DONE]"]


def parsed(body: bytes) -> Usage:
    """The highest counts that a full parse finds."""
    usage = Usage()
    for document in documents(body):
        for holder in (document, document.get("message"), document.get("response")):
            told = (holder.get("usage") if isinstance(holder, dict) else None) or {}
            prompt = told.get("prompt_tokens", told.get("input_tokens", 0)) or 0
            completion = told.get("completion_tokens", told.get("output_tokens", 0)) or 0
            usage = Usage(
                max(usage.prompt_tokens, prompt), max(usage.completion_tokens, completion)
            )
    return usage


def fed(tap: Tap, *pieces: bytes) -> Usage:
    """What is told of these pieces."""
    for piece in pieces:
        assert tap.feed(piece) == piece
    assert tap.end() == b""
    return tap.usage


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def bytewise(body: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in body]
