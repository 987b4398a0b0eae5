"""The messages that the fake backend sends and the load generator expects, byte for byte."""

import json

MODEL = "bench"
CHAT_PATH = "/v1/chat/completions"
KEY = "sk-bench"
UNARY_BYTES = 1024
STAMP_DIGITS = 20

_EVENT_HEAD = (
    b'data: {"id":"chatcmpl-be0c4a5d9f2e7a11","object":"chat.completion.chunk",'
    b'"created":1795169507,"model":"bench","choices":[{"index":0,"delta":{"content":" token"},'
    b'"logprobs":null,"finish_reason":null,"stop_reason":null,"token_ids":null}],"sent_ns":"'
)
_EVENT_TAIL = b'"}\n\n'
EVENT_BYTES = len(_EVENT_HEAD) + STAMP_DIGITS + len(_EVENT_TAIL)
_EVENT_CHUNK = b"%x\r\n%s%%0%dd%s\r\n" % (EVENT_BYTES, _EVENT_HEAD, STAMP_DIGITS, _EVENT_TAIL)

FINISH_EVENT = (
    b'data: {"id":"chatcmpl-be0c4a5d9f2e7a11","object":"chat.completion.chunk",'
    b'"created":1795169507,"model":"bench","choices":[{"index":0,"delta":{},'
    b'"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}\n\n'
)
DONE_EVENT = b"data: [DONE]\n\n"
STREAM_END = FINISH_EVENT + DONE_EVENT


def chunk(data: bytes) -> bytes:
    """Frame `data` as one HTTP/1.1 chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event_chunk(sent_ns: int) -> bytes:
    """One event in its own chunk, stamped with the monotonic clock in nanoseconds."""
    return _EVENT_CHUNK % sent_ns


def event_stamp(event: bytes) -> int | None:
    """The stamp of an event without its closing blank line, or None where it is no such event."""
    if len(event) != EVENT_BYTES - 2 or not event.startswith(_EVENT_HEAD):
        return None
    return int(event[len(_EVENT_HEAD) : len(_EVENT_HEAD) + STAMP_DIGITS])


def _padded_json(document: dict[str, object], holder: dict[str, str], size: int) -> bytes:
    """Serialise `document`, its `holder["content"]` filled up so that it takes `size` bytes."""
    holder["content"] = ""
    missing = size - len(json.dumps(document, separators=(",", ":")))
    holder["content"] = ("The quick brown fox jumps over the lazy dog. " * 40)[:missing]
    return json.dumps(document, separators=(",", ":")).encode()


def unary_answer() -> bytes:
    """A chat completion of exactly 1 KiB."""
    message = {"role": "assistant", "content": ""}
    document: dict[str, object] = {
        "id": "chatcmpl-be0c4a5d9f2e7a11",
        "object": "chat.completion",
        "created": 1795169507,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 190, "total_tokens": 318, "completion_tokens": 128},
    }
    return _padded_json(document, message, UNARY_BYTES)


def chat_body(**fields: object) -> bytes:
    """A chat request's body of exactly 1 KiB; `fields` are added to it."""
    message = {"role": "user", "content": ""}
    document = {"model": MODEL, "messages": [message], "temperature": 0.7, **fields}
    return _padded_json(document, message, UNARY_BYTES)


def chat_request(host: str, **fields: object) -> bytes:
    """The same as a whole HTTP request, with the headers that a usual client sends."""
    body = chat_body(**fields)
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.0.0\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
