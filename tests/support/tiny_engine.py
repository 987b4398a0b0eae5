"""An engine of one file and no package, for containers: `python3 -c "…" DELAY_S`.

It answers /health, /v1/models and chat completions, unary and streamed, and says which container
it runs in.
"""

import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DELAY_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
PORT = int(os.environ.get("PORT", "8000"))
WHERE = socket.gethostname()
GPU = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/v1/models":
            row = {"id": "tiny", "object": "model", "max_model_len": 4096, "gpu": GPU}
            self.answer({"object": "list", "data": [row]})
        else:
            self.answer({}, 200 if self.path == "/health" else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(DELAY_S)
        key = self.headers.get("authorization", "")
        text = f"{WHERE} {key}".strip()
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer({"id": "c", "object": "chat.completion", "created": 1, "model": "tiny",
                         "choices": [choice], "usage": usage})  # fmt: skip
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in ("one ", "two ", text):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
                     "choices": [choice]}  # fmt: skip
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("", PORT), Handler).serve_forever()
