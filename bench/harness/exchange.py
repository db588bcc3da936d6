"""A client and a backend in one thread: what passes between them passes one after the other, so that a proxy's work for
each exchange is always the same."""

import selectors
import socket
from collections.abc import Iterable

from .failure import Failure

WAIT_MAX_S = 60
ASK = b'{"model":"bench","messages":[{"role":"user","content":"How high is the river today?"}]%s}'
ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Two metres and ten."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":14,"completion_tokens":5,"total_tokens":19}}'
)
FINISH = (
    'data: {"id":"chatcmpl-C9aXb1","object":"chat.completion.chunk","created":1761000000,"model":"gpt-4o-mini",'
    '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":14,"completion_tokens":5,"total_tokens":19}}\n\n'
)


class Exchange:
    """Both ends of a proxy."""

    def __init__(self, backends: int = 1) -> None:
        self.ends = selectors.DefaultSelector()
        self.backends: list[str] = []
        for _ in range(backends):
            listener = socket.create_server(("127.0.0.1", 0))
            self.ends.register(listener, selectors.EVENT_READ, "listener")
            self.backends.append(f"127.0.0.1:{listener.getsockname()[1]}")
        self.backend = self.backends[0]
        self.kept: list[socket.socket] = []
        # Connections that were taken so far.
        self.taken = 0
        self.client: socket.socket | None = None

    def connect(self, target: str) -> None:
        """One connection, which all requests take."""
        host, port = target.split(":")
        self.client = socket.create_connection((host, int(port)), timeout=WAIT_MAX_S)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ends.register(self.client, selectors.EVENT_READ, "client")

    def whole(self, path: str, user: str = "") -> None:
        """A small request, answered in one piece; in the name of a user if one is given."""
        self.ask(path, ASK % b"", f"x-user-id: {user}\r\n" if user else "")
        backend = self.asked()
        backend.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
        )
        head, body = self.answer_head()
        if b" 200 " not in head.splitlines()[0]:
            raise Failure(f"{path}: {head.decode(errors='replace')}{body.decode(errors='replace')}")
        while len(body) < len(ANSWER):
            body += self.more()
        if body != ANSWER:
            raise Failure(f"{path}: another answer came than was sent")

    def streamed(self, path: str, events: list[str]) -> None:
        """A request whose answer is a stream that ends in order, of OpenAI's chat."""
        backend = self.open(path, "text/event-stream")
        self.stream(backend, [*events, FINISH, "data: [DONE]\n\n"])
        backend.sendall(b"0\r\n\r\n")
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += self.more()

    def open(self, path: str, content_type: str) -> socket.socket:
        """A request for a stream, and the head of its answer; the backend's side is returned."""
        self.ask(path, ASK % b',"stream":true,"stream_options":{"include_usage":true}')
        backend = self.asked()
        backend.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % content_type.encode()
        )
        return backend

    def stream(self, backend: socket.socket, events: Iterable[str]) -> None:
        """Events, each sent when the one before has arrived."""
        for event in events:
            data = event.encode()
            backend.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            got = b""
            while not got.endswith(data + b"\r\n"):
                got += self.more()

    def leave(self) -> None:
        """Goes in the middle of a stream."""
        for end in [self.client, *self.kept]:
            self.ends.unregister(end)
            end.close()
        self.kept.clear()

    def ask(self, path: str, body: bytes, headers: str = "") -> None:
        """Sends a request."""
        self.client.sendall(
            f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\naccept: */*\r\n"
            f"user-agent: instructions\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body
        )

    def asked(self) -> socket.socket:
        """Takes a request whole, on whichever connection it comes, and returns that."""
        got: dict[socket.socket, bytes] = {}
        while True:
            ready = [(key.fileobj, key.data) for key, _ in self.ends.select(WAIT_MAX_S)]
            if not ready or any(what == "client" for _, what in ready):
                raise Failure(f"no request reached the backend: {self.client.recv(4096) if ready else b''!r}")
            for end, what in ready:
                if what == "listener":
                    accepted, _ = end.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.ends.register(accepted, selectors.EVENT_READ, "kept")
                    self.kept.append(accepted)
                    self.taken += 1
                    continue
                data = end.recv(65536)
                if not data:
                    self.kept.remove(end)
                    self.ends.unregister(end)
                    end.close()
                    continue
                got[end] = got.get(end, b"") + data
                if is_whole(got[end]):
                    return end

    def answer_head(self) -> tuple[bytes, bytes]:
        """The head of the answer, and what came of its body."""
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.more()
        head, body = got.split(b"\r\n\r\n", 1)
        return head, body

    def more(self) -> bytes:
        """The client's next bytes."""
        data = self.client.recv(65536)
        if not data:
            raise Failure("the proxy closed the client's connection")
        return data


def is_whole(request: bytes) -> bool:
    """Whether a request with a length has come to its end."""
    head, found, body = request.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found and lengths) and len(body) >= int(lengths[0])
