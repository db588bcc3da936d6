#!/usr/bin/env python3
"""Holds what a request and a streamed event may take of the kernel and of the allocator.

    run.py STREAMGAUGE

System calls are strace's, allocations are callgrind's count of calls into jemalloc. Client and backend are one thread, and each
event is sent when the one before has arrived, so that the proxy does the same every time. How often its threads wait and wake
each other depends on the machine, and is not held.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "bench"))

from harness import callgrind  # noqa: E402
from harness.exchange import Exchange  # noqa: E402
from harness.processes import Processes, free_port, processes  # noqa: E402
from harness.samples import SAMPLES  # noqa: E402
from harness.variants import ready  # noqa: E402

CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
state_dir = "{state}"

[[upstream]]
name = "backend"
url = "http://{backend}"

[[route]]
name = "all"
path = "*"
targets = [{{ upstream = "backend" }}]
"""

WARM_UP, TRACED, COUNTED = 50, 400, 100
# Some threads work by the clock, for all that is sent or not: the least of several counts has least of that.
REPEATS = 5
ATTACH_S = 20

# At most so many. A request: from the client, to the upstream with its body in the same write, from the upstream, to the
# client, and whether a kept connection still lives. An event: in, and out.
CALLS = {
    "a request": {"receive": 2, "send": 2, "socket": 1},
    "an event": {"receive": 1, "send": 1, "socket": 0},
}
KINDS = {
    "receive": ("recvfrom", "recvmsg", "read", "readv"),
    "send": ("sendto", "sendmsg", "writev"),
    "socket": ("getsockopt", "setsockopt", "getpeername", "getsockname", "socket", "connect", "accept4", "close", "epoll_ctl"),
}
ALLOCATIONS = {"a request": 135, "an event": 3}
# What is left of it.
BESIDES = 0.3
ALLOCATOR = re.compile(r"^_rjem_(malloc|mallocx|calloc|realloc|rallocx)$")

Work = Callable[[int], None]


def main() -> int:
    """Measures both ways, and tells what is above its bound."""
    binary = Path(sys.argv[1]).resolve()
    faults = []
    with tempfile.TemporaryDirectory(prefix="streamgauge-costs-") as directory:
        for count in (system_calls, allocations):
            into = Path(directory) / count.__name__
            into.mkdir()
            faults += count(binary, into)
    for fault in faults:
        print(f"costs: {fault}", file=sys.stderr)
    return 1 if faults else 0


def system_calls(binary: Path, directory: Path) -> list[str]:
    """Of a request and of an event, by kind."""
    faults = []
    with processes(directory) as children:
        child, works = started(children, [str(binary)], directory)
        for what, work in works:
            work(WARM_UP)
            calls = traced(child.pid, lambda work=work: work(TRACED), directory / "strace")
            for kind, most in CALLS[what].items():
                each = sum(calls.get(name, 0) for name in KINDS[kind]) / TRACED
                print(f"costs: {what}: {each:.2f} system calls to {kind}, at most {most}")
                if each > most + BESIDES:
                    told = ", ".join(f"{name} {calls[name] / TRACED:.2f}" for name in KINDS[kind] if name in calls)
                    faults.append(f"{what} takes {each:.2f} system calls to {kind}, and may take {most}: {told}")
    return faults


def allocations(binary: Path, directory: Path) -> list[str]:
    """Of a request and of an event."""
    faults = []
    out = directory / "callgrind.out"
    with processes(directory) as children:
        child, works = started(children, [*callgrind.words(out), str(binary)], directory)
        proxy = callgrind.Attached(child, out)
        for what, work in works:
            work(WARM_UP)
            each = min(allocated(proxy, work) for _ in range(REPEATS))
            most = ALLOCATIONS[what]
            print(f"costs: {what}: {each:.1f} allocations, at most {most}")
            if not 0 < each <= most + BESIDES:
                faults.append(f"{what} takes {each:.1f} allocations, and may take {most}")
    return faults


def allocated(proxy: callgrind.Attached, work: Work) -> float:
    """Allocations of each request or event."""
    proxy.taken()
    work(COUNTED)
    proxy.taken()
    return callgrind.calls(proxy.last, ALLOCATOR) / COUNTED


def started(children: Processes, words: list[str], directory: Path) -> tuple[subprocess.Popen, list[tuple[str, Work]]]:
    """A proxy, and what is to be sent through it: requests on one connection, and events of one stream."""
    ends, port, admin = Exchange(), free_port(), free_port()
    path = directory / "config" / "streamgauge.toml"
    path.parent.mkdir()
    path.write_text(CONFIG.format(port=port, admin=admin, backend=ends.backend, state=directory / "state"))
    child = children.start("proxy", [*words, "run", "--config", str(path), "--log", "json"])
    children.wait(child, lambda: ready(admin), "/readyz", 180)
    ends.connect(f"127.0.0.1:{port}")
    sample = SAMPLES[0]
    stream: list = []

    def requests(count: int) -> None:
        for _ in range(count):
            ends.whole(sample.path)

    def events(count: int) -> None:
        if not stream:
            stream.append(ends.open(sample.path, sample.content_type))
        ends.stream(stream[0], sample.events(count))

    return child, [("a request", requests), ("an event", events)]


def traced(pid: int, work: Callable[[], None], out: Path) -> dict[str, int]:
    """The system calls of a process and its threads while `work` runs, by name."""
    strace = subprocess.Popen(["strace", "-f", "-c", "-p", str(pid), "-o", str(out)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + ATTACH_S
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        if strace.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"costs: strace cannot attach: {strace.stderr.read() if strace.stderr else ''}")
        time.sleep(0.05)
    try:
        # strace takes the threads one after the other: with this it has them all, or the first work would go uncounted.
        wait_for_threads(pid, deadline)
        work()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
    lines = (line.split() for line in out.read_text().splitlines())
    return {words[-1]: int(words[3]) for words in lines if len(words) >= 5 and words[3].isdigit()}


def wait_for_threads(pid: int, deadline: float) -> None:
    """Until each thread of the process is traced."""
    def free() -> list[str]:
        return [
            task.name for task in Path(f"/proc/{pid}/task").iterdir() if "TracerPid:\t0" in (task / "status").read_text()
        ]
    while free():
        if time.monotonic() > deadline:
            raise SystemExit(f"costs: strace does not have the threads {free()}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
