"""A night: healthy traffic, into which three troubles come (a slow replica, one that truncates every answer, a user who floods).
Then a reader who knows nothing but docs/incident-response.md runs the commands that stand there, in their order, and has to name each
culprit, its endpoint, since when, and who.

Usage: night.py BINARY (from the project's root; needs jq, curl and bash)
"""

import asyncio
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

PAGE = pathlib.Path("docs/incident-response.md")
QUIET_S = 5
NIGHT_S = 25
USERS = 40
FLOODER = "night-owl-7"
HEALTHY_EVERY_S = 0.08
FLOOD_EVERY_S = 0.1
SLOW_S = 1.5

CONFIG = """
[server]
state_dir = "{work}/state"
trusted_proxies = ["127.0.0.1"]

[[limit]]
name = "per-user"
key = "user"
requests_per_minute = 60

[[upstream]]
name = "vllm"
urls = ["{vllm_a}", "{vllm_b}", "{vllm_c}"]

[[upstream]]
name = "tgi"
urls = ["{tgi_a}", "{tgi_b}", "{tgi_c}"]

[[route]]
name = "chat"
path = "/v1/*"
upstream = "vllm"
limits = ["per-user"]

[[route]]
name = "summaries"
path = "/summaries/*"
upstream = "tgi"
"""


class Failed(Exception):
    pass


def start(arguments, **more):
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def read_until(process, pattern):
    while line := process.stdout.readline():
        if found := re.search(pattern, line):
            return found.group(1)
    raise Failed(f"{process.args[0]} ended before it said {pattern}")


async def ask(proxy, path, user):
    """Asks for a stream and reads it to its end, however that is."""
    host, port = proxy.removeprefix("http://").split(":")
    body = json.dumps({"model": "night-1", "stream": True, "messages": [{"role": "user", "content": "still awake?"}]})
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nhost: {host}\r\nx-user-id: {user}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write((head + body).encode())
        await writer.drain()
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass  # Some answers break off: that is the point.
    finally:
        writer.close()


async def traffic(proxy, seconds, flood):
    asked, tasks = 0, set()

    async def every(pace, path_of, user_of):
        nonlocal asked
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            task = asyncio.create_task(ask(proxy, path_of(number), user_of(number)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            asked, number = asked + 1, number + 1
            await asyncio.sleep(pace)

    kinds = [every(HEALTHY_EVERY_S, lambda n: ("/v1", "/summaries/v1")[n % 2], lambda n: f"user-{n % USERS}")]
    if flood:
        kinds.append(every(FLOOD_EVERY_S, lambda _: "/v1", lambda _: FLOODER))
    await asyncio.gather(*kinds)
    await asyncio.gather(*tasks)
    return asked


def commands(page):
    """The commands of the page, by their comment: `# question` and the lines below it, up to the next."""
    found, question = {}, None
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
        for line in block.splitlines():
            if line.startswith("# "):
                question = line[2:].strip()
                found[question] = []
            elif question and line.strip():
                found[question].append(line)
    return {question: "\n".join(lines) for question, lines in found.items()}


class Reader:
    """Somebody with a shell, the page, an admin address and a log."""

    def __init__(self, binary, admin, log):
        self.commands = commands(PAGE)
        self.admin, self.log = admin, log
        self.path = f"{pathlib.Path(binary).resolve().parent}:{os.environ['PATH']}"

    def run(self, question, **words):
        if question not in self.commands:
            raise Failed(f"{PAGE} has no command for: {question}")
        command = self.commands[question].replace("ADMIN", self.admin).replace("the-log", str(self.log))
        for word, value in words.items():
            command = command.replace(word, value)
        environment = {**os.environ, "PATH": self.path, "STREAMGAUGE_ADMIN": self.admin}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, env=environment
        )
        print(f"\n# {question}\n{done.stdout}{done.stderr}", end="", flush=True)
        if done.returncode != 0:
            raise Failed(f"the command for `{question}` ended with {done.returncode}: {command}")
        return done.stdout


def expect(what, answer, *words):
    for word in words:
        if word not in answer:
            raise Failed(f"{what}: `{word}` is not in the answer")


def since(what, answer, began):
    """That the earliest time in an answer is when the trouble began, to a few seconds."""
    told = [datetime.datetime.fromisoformat(text) for text in re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)", answer)]
    if not told:
        raise Failed(f"{what}: no time is told")
    late = (min(told) - began).total_seconds()
    if not -1 <= late <= 8:
        raise Failed(f"{what}: it is told to begin {late:.1f} s after it did")


def address(url):
    return url.removeprefix("http://")


def utc_now():
    return datetime.datetime.now(datetime.timezone.utc)


def night(binary, work):
    names = ["vllm_a", "vllm_b", "vllm_c", "tgi_a", "tgi_b", "tgi_c"]
    backends = start([sys.executable, "tests/night/backends.py", *names])
    urls = {name: read_until(backends, rf"{name} listens at (\S+)") for name in names}

    def turns(name, key, value):
        backends.stdin.write(f"{name} {key} {value}\n")
        backends.stdin.flush()
        read_until(backends, rf"({name} {key})")

    config, log = work / "streamgauge.toml", work / "log"
    config.write_text(CONFIG.format(work=work, **urls))
    with log.open("w") as out:
        proxy = subprocess.Popen(
            [binary, "run", "--config", str(config), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json"],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        started = None
        while started is None:
            if proxy.poll() is not None:
                raise Failed(f"the proxy did not start: {log.read_text()}")
            lines = [line for line in log.read_text().splitlines() if '"event":"started"' in line]
            started = json.loads(lines[0]) if lines else time.sleep(0.1)
        url, admin = started["frontend_urls"][0], started["admin_url"]
        print(f"a quiet evening of {QUIET_S} s", flush=True)
        asyncio.run(traffic(url, QUIET_S, flood=False))
        turns("vllm_b", "slow", SLOW_S)
        turns("tgi_c", "truncate", 1)
        began = utc_now()
        print(f"three troubles, for {NIGHT_S} s", flush=True)
        asked = asyncio.run(traffic(url, NIGHT_S, flood=True))
        print(f"{asked} requests came meanwhile", flush=True)
        questions(Reader(binary, admin, log), urls, began, url)
    finally:
        proxy.terminate()
        proxy.wait(timeout=60)
        backends.kill()
        backends.wait()


def questions(reader, urls, began, proxy):
    slow, broken = address(urls["vllm_b"]), address(urls["tgi_c"])
    innocent = [address(url) for name, url in urls.items() if name not in ("vllm_b", "tgi_c")]

    answer = reader.run("what fails, where, and who is refused what; since when, how often, the most frequent first")
    failing = [line for line in answer.splitlines() if line.startswith("failure")]
    refused = [line for line in answer.splitlines() if line.startswith("refusal")]
    expect("what fails", "\n".join(failing), "upstream_body_reset", broken, "summaries")
    expect("who is refused", refused[0] if refused else "", FLOODER, "per-user")
    since("what fails", failing[0], began)

    answer = reader.run("which replica is slow: first tokens of the last minutes by endpoint, the slowest first")
    expect("which replica is slow", answer.splitlines()[0], "vllm", slow)

    answer = reader.run("since when is it slow: its first answer that was late, and how many there were", REPLICA=slow)
    since("since when is it slow", answer, began)

    answer = reader.run("which replica fails, and how: every attempt counts, also those that another one repaired")
    expect("which replica fails", answer, broken, "upstream_body_reset")
    if any(other in answer for other in innocent):
        raise Failed("which replica fails: one that is well is named")

    answer = reader.run("who floods, since when")
    expect("who floods", answer, FLOODER, "per-user")
    since("who floods", answer, began)

    answer = reader.run("which limit is full since when, and for whom; what of it is spent, what only held")
    expect("which limit is full", answer.splitlines()[0], FLOODER, "per-user")
    since("which limit is full", answer.splitlines()[0], began)

    answer = reader.run("who was refused, by which limit, how often, since when, from the log")
    expect("who was refused", answer.splitlines()[0], FLOODER, "per-user")
    since("who was refused", answer.splitlines()[0], began)

    expect("the picture", reader.run("all of it in one picture"), slow, broken, FLOODER, "upstream body reset")

    reader.run("that replica gets no new requests, from now on", UPSTREAM="vllm", ENDPOINT=slow)
    before = len(asked_of(reader.log, slow))
    asyncio.run(traffic(proxy, 3, flood=False))
    if len(asked_of(reader.log, slow)) > before:
        raise Failed("the replica that was taken out was asked")
    expect("what is out of service", reader.run("what is out of service by hand, since when, by whom, why"), slow)
    reader.run("back in service", UPSTREAM="vllm", ENDPOINT=slow)
    if slow in reader.run("what is out of service by hand, since when, by whom, why"):
        raise Failed("the replica that was put back is told to be out of service")


def asked_of(log, replica):
    return [line for line in log.read_text().splitlines() if replica in line and '"attempts"' in line]


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as work:
        try:
            night(binary, pathlib.Path(work))
        except Failed as failed:
            raise SystemExit(f"\nnight: {failed}") from None
    print("\nnight: culprits, endpoints, times and users were named")


main()
