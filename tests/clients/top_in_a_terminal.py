"""`streamgauge top` in a real terminal: it draws, obeys keys, outlives the proxy, and leaves the terminal as it was.

    top_in_a_terminal.py BINARY
"""

import codecs
import fcntl
import http.client
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request

BINARY = sys.argv[1]
PATIENCE_S = 20.0
LINES, COLUMNS = 30, 120
# A sequence that goes on with the next read.
BEGUN = re.compile(r"\x1b(\[[0-9;?]*|[()])?$")
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([a-zA-Z])|\x1b[()][A-Z0-9]|\x1b[=>78]")


def started(arguments, pattern):
    """A process, and what the pattern's group matched in its output."""
    process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        found = re.search(pattern, line)
        if found:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, found
    sys.exit(f"{arguments} did not start")


class Screen:
    """As much of a terminal as `top` uses: characters, the cursor's place, and clearing all."""

    def __init__(self):
        self.cells, self.line, self.column, self.begun = {}, 0, 0, ""

    def write(self, more):
        text = self.begun + more
        begun = BEGUN.search(text)
        self.begun = begun[0] if begun else ""
        text = text.removesuffix(self.begun)
        at = 0
        while at < len(text):
            escape = ESCAPE.match(text, at)
            if escape is None:
                self.cells[self.line, self.column] = text[at]
                self.column += 1
                at += 1
                continue
            if escape[2] == "H":
                self.line, self.column = (int(part) - 1 for part in (escape[1] or "1;1").split(";"))
            elif escape[2] == "J":
                self.cells = {}
            at = escape.end()

    def text(self):
        rows = ("".join(self.cells.get((line, column), " ") for column in range(COLUMNS)) for line in range(LINES))
        return "\n".join(row.rstrip() for row in rows)


class Terminal:
    """`top` behind a pseudo-terminal."""

    def __init__(self, admin):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.slave, self.before = slave, termios.tcgetattr(slave)
        self.process = subprocess.Popen([BINARY, "top", "--admin", admin], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.raw, self.screen, self.decoder = "", Screen(), codecs.getincrementaldecoder("utf-8")()

    def read(self, until):
        """Reads until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            if time.monotonic() > deadline:
                sys.exit(f"the terminal shows:\n{self.screen.text()}")
            if select.select([self.master], [], [], 0.2)[0]:
                text = self.decoder.decode(os.read(self.master, 65536))
                self.raw += text
                self.screen.write(text)

    def see(self, *words):
        self.read(lambda: all(word in self.screen.text() for word in words))

    def type(self, keys):
        os.write(self.master, keys)

    def left(self):
        """Waits for the end; the terminal must be as it was."""
        self.read(lambda: "\x1b[?1049l" in self.raw)
        code = self.process.wait(PATIENCE_S)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal's modes are not what they were"
        os.close(self.slave)
        os.close(self.master)
        return code


def stream(proxy):
    body = json.dumps({"model": "demo", "stream": True, "messages": []}).encode()
    headers = {"content-type": "application/json", "x-demo-tokens": "600", "x-demo-gap-ms": "50"}
    request = urllib.request.Request(f"{proxy}/v1/chat/completions", body, headers)
    try:
        urllib.request.urlopen(request).read()
    except (OSError, http.client.HTTPException):
        pass  # The proxy is ended under it.


def main():
    backend, found = started(["demo", "--listen", "127.0.0.1:0"], r"listens at (http:\S*[0-9])\.")
    ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json"]
    pattern = r'"admin_url":"([^"]*)".*"frontend_urls":\["([^"]*)"'
    gauge, urls = started(["run", "--upstream", found[1], *ports], pattern)
    admin, proxy = urls[1], urls[2]
    try:
        terminal = Terminal(admin)
        terminal.see("Nothing has come through yet.")
        assert "\x1b[?1049h" in terminal.raw
        threading.Thread(target=stream, args=(proxy,), daemon=True).start()
        terminal.see("writing")
        terminal.type(b"j\r")
        terminal.see("Anatomy", "upstream wait", "Runs for")
        terminal.type(b"\x1b")
        # An escape alone is told from a key's sequence by what follows.
        terminal.read(lambda: "Anatomy" not in terminal.screen.text().replace("Enter anatomy", ""))
        terminal.type(b"?")
        terminal.see("Keys", "the next pane below")
        terminal.type(b"q")
        plain = subprocess.run([BINARY, "top", "--admin", admin], capture_output=True, text=True, timeout=PATIENCE_S)
        assert plain.returncode == 0 and "● live" in plain.stdout and "\x1b" not in plain.stdout, plain
        gauge.kill()
        gauge.wait()
        terminal.see("trying again every second")
        terminal.type(b"q")
        assert terminal.left() == 0

        for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            terminal = Terminal(admin)
            terminal.see("no connection")
            terminal.process.send_signal(ending)
            assert terminal.left() == 0, ending
        plain = subprocess.run([BINARY, "top", "--admin", admin], capture_output=True, text=True, timeout=PATIENCE_S)
        assert plain.returncode == 1 and "cannot ask" in plain.stderr, plain
        print("top: draws, obeys, outlives the proxy, and leaves the terminal as it was")
    finally:
        for process in (gauge, backend):
            process.kill()


main()
