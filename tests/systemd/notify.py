"""What systemd is told, at a socket of ours in the place of its own, and sockets that it passes.

Usage: notify.py BINARY
"""

import http.client
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BINARY = os.path.abspath(sys.argv[1])
PATIENCE_S = 20
# A shell that becomes the program knows the number of its process beforehand.
BECOME = 'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=clients; exec "$0" "$@" 3<&0 </dev/null'


class Slow(http.server.BaseHTTPRequestHandler):
    """A backend that answers when it is let."""

    asked, answer = threading.Event(), threading.Event()

    def do_GET(self):
        self.asked.set()
        self.answer.wait(PATIENCE_S)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Program:
    def __init__(self, directory, config, environment, passed=None):
        self.config = pathlib.Path(directory, "streamgauge.toml")
        self.config.write_text(config)
        command = [BINARY, "run", "--admin", "127.0.0.1:0", "--log", "json", "--config", str(self.config)]
        variables = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": directory, **environment}
        if passed is not None:
            command = ["sh", "-c", BECOME, *command]
        self.process = subprocess.Popen(
            command, env=variables, stdin=passed or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def started(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


class Manager:
    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(PATIENCE_S)

    def told(self):
        return self.socket.recv(512).decode().rstrip()

    def told_of_state(self):
        while (told := self.told()) == "WATCHDOG=1":
            pass
        return told

    def hears_the_watchdog(self):
        """Twice more: one message might have been on its way."""
        for _ in range(2):
            while self.told() != "WATCHDOG=1":
                pass

    def told_of_a_reload(self, before):
        told = self.told_of_state()
        at = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told)
        assert at, told
        assert before <= int(at[1]) <= monotonic_us(), (before, told)
        told = self.told_of_state()
        assert told == "READY=1", told


def monotonic_us():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def config(upstream, listen):
    return f'[server]\nlisten = {json.dumps(listen)}\n[[upstream]]\nurl = "http://{upstream}"\n'


def get(url, path):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("GET", path)
    return connection.getresponse().read()


def told_of_start_reloads_end_and_that_the_process_works(directory, upstream):
    manager = Manager(directory)
    environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "100000"}
    with Program(directory, config(upstream, "127.0.0.1:0"), environment) as program:
        url = program.started()["frontend_urls"][0]
        assert (told := manager.told_of_state()) == "READY=1", told
        manager.hears_the_watchdog()

        before = monotonic_us()
        program.process.send_signal(signal.SIGHUP)
        manager.told_of_a_reload(before)
        # A file that is refused: the reload must not look unfinished.
        new = pathlib.Path(directory, "new")
        new.write_text("nonsense")
        before = monotonic_us()
        new.replace(program.config)
        manager.told_of_a_reload(before)

        Slow.answer.clear()
        answers = []
        client = threading.Thread(target=lambda: answers.append(get(url, "/slow")))
        client.start()
        assert Slow.asked.wait(PATIENCE_S)
        program.process.send_signal(signal.SIGTERM)
        assert (told := manager.told_of_state()) == "STOPPING=1", told
        # An answer that takes its time is no hung process.
        manager.hears_the_watchdog()
        Slow.answer.set()
        client.join(PATIENCE_S)
        assert answers == [b"ok"] and program.process.wait(PATIENCE_S) == 0


def a_passed_socket_serves_also_those_who_came_before_the_start(directory, upstream):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "%s:%d" % listener.getsockname()
        early = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        early.request("GET", "/early")
        with Program(directory, config(upstream, address), {}, listener) as program:
            assert program.started()["listen"] == address
            listener.close()
            assert early.getresponse().read() == b"ok"
            assert get(address, "/later") == b"ok"
            program.end()


def the_file_of_a_passed_socket_stays(directory, upstream):
    path = os.path.join(directory, "clients.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    own = os.path.join(directory, "own.sock")
    with Program(directory, config(upstream, [f"unix:{path}", f"unix:{own}"]), {}, listener) as program:
        program.started()
        listener.close()
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(path)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(512).startswith(b"HTTP/1.")
        client.close()
        assert os.path.exists(own)
        program.end()
    assert os.path.exists(path), "systemd's file is gone: nobody would reach the next process"
    assert not os.path.exists(own)


def a_socket_that_the_configuration_does_not_name_is_refused(directory, upstream):
    with socket.create_server(("127.0.0.1", 0)) as listener, Program(directory, config(upstream, "127.0.0.1:0"), {}, listener) as program:
        assert program.process.wait(PATIENCE_S) == 1
        said = program.process.stderr.read()
        assert "clients" in said and "does not listen at any of 127.0.0.1:0" in said and "ListenStream=" in said, said


backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
threading.Thread(target=backend.serve_forever, daemon=True).start()
Slow.answer.set()
tests = [
    told_of_start_reloads_end_and_that_the_process_works,
    a_passed_socket_serves_also_those_who_came_before_the_start,
    the_file_of_a_passed_socket_stays,
    a_socket_that_the_configuration_does_not_name_is_refused,
]
for test in tests:
    with tempfile.TemporaryDirectory() as directory:
        test(directory, "127.0.0.1:%d" % backend.server_port)
print(f"{len(tests)} tests of what systemd is told and passes")
