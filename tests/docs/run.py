#!/usr/bin/env python3
"""Runs the code blocks of a page, in order, in an empty directory.

  run.py BINARY PAGE NODE

Above each block a comment says what to do with it:

  <!-- block: run -->                  a shell runs it, and it must not fail; `run, but make` leaves out lines that start with `make`
  <!-- block: serve URL -->            a shell runs it until the page's end; URL must answer
  <!-- block: output -->               each line stands in what the block before has said
  <!-- block: file NAME -->            it is written; `append NAME` puts it at the file's end
  <!-- block: python -->               Python runs it
  <!-- block: check NAME... -->        a part of a configuration that is good, with an upstream of each name added
  <!-- block: next.config.js -->       it is a configuration of Next.js with a rewrite
  <!-- block: not run: WHY -->         it is no code, or cannot be run here

A comment `<!-- before: COMMAND -->` has a shell run a command that the reader need not see; `<!-- before, serve URL: COMMAND -->` likewise.
A block without a comment is a failure.
"""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PART = re.compile(r"<!-- before(?:, serve (?P<hidden_url>\S+))?: (?P<hidden>[^\n]*) -->|(?:<!-- block: (?P<what>[^\n]*?) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.S | re.M)
BLOCK_S = 60


class Page:
    def __init__(self, binary, path, node, directory):
        self.path, self.node, self.directory = path, node, pathlib.Path(directory)
        self.serving, self.said, self.counts = [], "", {}
        programs = self.directory / ".bin"
        programs.mkdir()
        (programs / "streamgauge").symlink_to(binary)
        venv = ROOT / ".cache/venv/bin"
        for program in ("python", "uvicorn"):
            (programs / program).symlink_to(venv / program)
        self.environment = {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(self.directory), "LANG": "C.UTF-8", "REPOSITORY": str(ROOT)}
        self.python = venv / "python"

    def fail(self, text, why):
        sys.exit(f"{self.path.name}: {why}\n{text}")

    def shell(self, text):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=BLOCK_S, stdin=subprocess.DEVNULL)
        self.said = done.stdout + done.stderr
        if done.returncode != 0:
            self.fail(text, f"ends with {done.returncode}: {self.said}")

    def serve(self, text, url):
        log = open(self.directory / f".log{len(self.serving)}", "w+")
        process = subprocess.Popen(["bash", "-c", f"exec {text.strip()}"], cwd=self.directory, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.serving.append(process)
        for _ in range(BLOCK_S * 10):
            try:
                urllib.request.urlopen(url, timeout=2).read()
                return
            except OSError:
                time.sleep(0.1)
            if process.poll() is not None:
                break
        log.seek(0)
        self.fail(text, f"{url} does not answer: {log.read()}")

    def block(self, what, text):
        kind, _, rest = what.partition(" ")
        if what.startswith("not run: ") and len(rest) > len("run: "):
            kind = "not run"
        elif what == "run" or what.startswith("run, but "):
            kind, _, left_out = what.partition(", but ")
            self.shell("\n".join(line for line in text.splitlines() if not left_out or not line.startswith(left_out)))
        elif kind == "serve":
            self.serve(text, rest)
        elif kind == "output":
            for line in text.splitlines():
                if line.strip() not in self.said:
                    self.fail(line, f"was not said. What was said:\n{self.said}")
        elif kind == "file":
            (self.directory / rest).write_text(text)
        elif kind == "append":
            with open(self.directory / rest, "a") as file:
                file.write(f"\n{text}")
        elif kind == "python":
            done = subprocess.run([self.python, "-c", text], cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=BLOCK_S)
            self.said = done.stdout
            if done.returncode != 0:
                self.fail(text, done.stderr)
        elif kind == "check":
            added = "".join(f'\n[[upstream]]\nname = "{name}"\nurl = "http://127.0.0.1:1"\n' for name in rest.split())
            file = self.directory / ".checked.toml"
            file.write_text(text + added)
            self.shell(f"touch jwks.json && OPENAI_API_KEY=x streamgauge check {file}")
        elif kind == "next.config.js":
            (self.directory / "next.config.js").write_text(text)
            self.shell(f"{self.node} -e 'require(\"./next.config.js\").rewrites().then((all) => {{ if (!all.length || !all.every((one) => one.source && one.destination)) process.exit(1); }})'")
        else:
            self.fail(text, f"nobody knows what to do with a block: {what}")
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def run(self):
        for part in PART.finditer(self.path.read_text()):
            if part["hidden"] and part["hidden_url"]:
                self.serve(part["hidden"], part["hidden_url"])
            elif part["hidden"]:
                self.shell(part["hidden"])
            elif part["what"] is None:
                self.fail(part["text"], "no comment says what to do with the block")
            else:
                self.block(part["what"], part["text"])

    def end(self):
        for process in self.serving:
            process.send_signal(signal.SIGTERM)
        for process in self.serving:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        page = Page(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), sys.argv[3], directory)
        try:
            page.run()
        finally:
            page.end()
    ran = sum(count for kind, count in page.counts.items() if kind != "not run")
    if ran == 0:
        sys.exit(f"{sys.argv[2]}: no block was run")
    print(f"{sys.argv[2]}: {', '.join(f'{count} {kind}' for kind, count in sorted(page.counts.items()))}")


main()
