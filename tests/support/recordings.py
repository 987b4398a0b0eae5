"""The recorded exchanges of a real vLLM, and how each is played back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.upstream import Close, Pause, Send, Step
from support.wire import parse_headers

FOLDER = Path(__file__).parent.parent / "fixtures" / "vllm-0.32.0"
LONGEST_PAUSE_S = 0.05
ROUTED = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/rerank", "/v1/score", "/pooling", "/classify", "/tokenize",
    "/detokenize",
}  # fmt: skip
REFUSED_BY_THE_ROUTER = {
    "http/err_dup_key",  # which of two keys counts would be the engine's whim
    "http/err_max_tokens_string",  # a limit must be able to read it
    "http/err_surrogate",
}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}
OWN = {"x-request-id", "x-router-service", "server-timing"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded exchange.

    Attributes:
        name: folder and file, without a suffix.
        request: the request's bytes; empty where none was stored.
        wire: the answer's bytes, framing and interim answers included.
        reads: (milliseconds after sending, bytes) of each read.
        about: the rest of what was recorded.
    """

    name: str
    request: bytes
    wire: bytes
    reads: tuple[tuple[float, int], ...]
    about: dict[str, Any]

    # -- the request -----------------------------------------------------------------------------

    def own_request(self) -> tuple[str, bytes] | None:
        """Path and body, if a client of the router may send this very request; else None."""
        head, _, body = self.request.partition(b"\r\n\r\n")
        words = head.split(b"\r\n")[0].split(b" ")
        if len(words) != 3 or words[0] != b"POST" or words[1].decode() not in ROUTED:
            return None
        if "wire_" in self.name or self.name in REFUSED_BY_THE_ROUTER or model_of(body) is None:
            return None
        return words[1].decode(), body

    # -- the answer ------------------------------------------------------------------------------

    @property
    def interim(self) -> bytes:
        """A leading `100 Continue`, or nothing."""
        lead = b"HTTP/1.1 100 Continue\r\n\r\n"
        return lead if self.wire.startswith(lead) else b""

    @property
    def head(self) -> bytes:
        return self.wire[len(self.interim) :].partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def end_to_end_headers(self) -> list[tuple[str, str]]:
        """What must reach the client, sorted."""
        return end_to_end(parse_headers(self.head))

    @property
    def body(self) -> bytes:
        """Bytes of the body, chunked framing taken off."""
        payload = self.wire[len(self.interim) + len(self.head) + 4 :]
        headers = dict(parse_headers(self.head))
        if headers.get("transfer-encoding") != "chunked":
            return payload[: int(headers["content-length"])]
        out = bytearray()
        while payload:
            line, _, payload = payload.partition(b"\r\n")
            size = int(line, 16)
            out += payload[:size]
            payload = payload[size + 2 :]
        return bytes(out)

    @property
    def kind(self) -> str:
        """`answer`, or why it is not a whole one: `silent`, `hung`, `no_head`, `bodiless`."""
        if not self.wire:
            return "silent" if self.about["error"] == "timeout" else "no_head"
        if self.about["error"] == "timeout":
            return "hung"
        return "bodiless" if self.about["framing"] == "none" else "answer"

    def steps(self) -> list[Step]:
        """The answer's bytes cut where they were read, with the recorded pauses, shortened."""
        steps: list[Step] = []
        at, clock = 0, None
        for moment, size in self._all_reads():
            if clock is not None and moment > clock:
                steps.append(Pause(min((moment - clock) / 1000, LONGEST_PAUSE_S)))
            steps.append(Send(self.wire[at : at + size]))
            at, clock = at + size, moment
        assert at == len(self.wire), self.name
        return [*steps, Close()] if self.about["closed_by_server_after"] is True else steps

    def _all_reads(self) -> list[tuple[float, int]]:
        """The reads, with what the recorder had read before or after it began to count."""
        reads = list(self.reads)
        if self.interim:
            reads.insert(0, (0.0, len(self.interim)))
        rest = len(self.wire) - sum(size for _, size in reads)
        return [*reads, (reads[-1][0], rest)] if rest else reads


def end_to_end(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers that are neither one hop's nor the router's own, sorted."""
    return sorted(pair for pair in headers if pair[0] not in HOP_BY_HOP | OWN)


def model_of(body: bytes) -> str | None:
    """The model that a body names, or None where the router could not read one."""
    try:
        content = json.loads(body, parse_constant=lambda name: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return None
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, str) and model else None


def load(file: Path) -> Recording:
    """Read one recording by its `.response.http`."""
    base = str(file).removesuffix(".response.http")
    about = json.loads(Path(base + ".json").read_text())
    request = Path(base + ".request.http")
    return Recording(
        name=base.removeprefix(f"{FOLDER}/"),
        request=request.read_bytes() if request.exists() else b"",
        wire=file.read_bytes(),
        reads=tuple((moment, size) for moment, size in about["reads_ms_bytes"]),
        about=about,
    )


def load_all() -> list[Recording]:
    """Every recorded response, by name."""
    return [load(file) for file in sorted(FOLDER.rglob("*.response.http"))]
