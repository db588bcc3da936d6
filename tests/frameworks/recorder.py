"""Stands between the proxy and an app, passes every byte on, and keeps what the app answered and when it was asked."""

import http.client
import io
import socket
import threading
import time


class Recorder:
    def __init__(self):
        self.target = None
        self.asked_at = None
        self.answers = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def begin(self):
        """Forgets what was recorded: the next request is the one to record."""
        with self.lock:
            self.answers, self.asked_at = [], None

    def body(self, of_first=False):
        """What the app answered since `begin`, without the framing of HTTP, or the first of its answers; and whether it ended
        in order."""
        with self.lock:
            answers = [bytes(answer) for answer in self.answers][: 1 if of_first else None]
        read = [body_of(answer) for answer in answers]
        return b"".join(body for body, _ in read), all(in_order for _, in_order in read)

    def behind_head(self):
        """What came behind the head of the first answer, as it came: the frames of a WebSocket."""
        with self.lock:
            first = bytes(self.answers[0]) if self.answers else b""
        return first.partition(b"\r\n\r\n")[2]

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                app = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self.pass_on, args=(client, app, self.note_request), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(app, client, self.note_answer()), daemon=True).start()

    def note_request(self, _):
        with self.lock:
            self.asked_at = self.asked_at or time.monotonic()

    def note_answer(self):
        """Keeps what comes over one connection; of each `begin` apart."""
        mine, of = None, None

        def note(read):
            nonlocal mine, of
            with self.lock:
                if of is not self.answers:
                    mine, of = bytearray(), self.answers
                    self.answers.append(mine)
                mine += read

        return note

    def pass_on(self, source, sink, note):
        try:
            while read := source.recv(65536):
                note(read)
                sink.sendall(read)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.close()


class Recorded:
    """Recorded bytes, as `http.client` reads them from a socket."""

    def __init__(self, data):
        self.data = data

    def makefile(self, *_, **__):
        return io.BytesIO(self.data)


def body_of(answer):
    response = http.client.HTTPResponse(Recorded(answer))
    try:
        response.begin()
    except http.client.HTTPException:
        return b"", False
    body = bytearray()
    return body, read_into(response, body.extend)


def read_into(response, note):
    """Reads a body as far as it comes; whether it ended in order."""
    try:
        while piece := response.read1(65536):
            note(piece)
    except (http.client.HTTPException, OSError):
        return False
    return True
