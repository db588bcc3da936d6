"""A backend behind which something collects streams: every answer comes at once, after a silence. Prints where it listens."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS, SILENCE = 40, 0.3
# Of which a part was read from a cache, a part written to it, and of the answer a part was reasoning.
USAGE = {
    "prompt_tokens": 100, "completion_tokens": TOKENS, "total_tokens": 100 + TOKENS,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 10},
}


def events():
    for number in range(TOKENS):
        choice = {"index": 0, "delta": {"content": f" word{number}"}, "finish_reason": None}
        yield {"id": "1", "object": "chat.completion.chunk", "model": "demo-1", "choices": [choice]}
    yield {"id": "1", "object": "chat.completion.chunk", "model": "demo-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {"id": "1", "object": "chat.completion.chunk", "model": "demo-1", "choices": [], "usage": USAGE}


class Held(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events()) + "data: [DONE]\n\n"
        time.sleep(SILENCE)  # What the model takes; the answer was streamed and nobody saw it.
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Held)
print(f"held back, listens at http://127.0.0.1:{server.server_port}.", flush=True)
server.serve_forever()
