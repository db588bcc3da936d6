"""What a request costs Streamgauge against how much there is of everything: instructions, counted by callgrind, which no other work on
the machine changes. Caches are not in them."""

import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import callgrind
from .exchange import Exchange
from .failure import Failure
from .processes import Processes, free_port, processes
from .report import aligned
from .sink import sink
from .variants import ready

# How far a curve may rise above its first point.
RISE_MAX = 0.10
# Requests of each turn, and the turns, of which the middle one counts: threads that work by the clock disturb some.
REQUESTS, TURNS = 200, 5
START_MAX_S, IDLE_S = 180, 3.0
# Among many endpoints each has its first connection before anything is counted: so many requests without a new one, or no more.
CONNECTED_AFTER, CONNECTING_MAX = 500, 10_000
CHAT = "/v1/chat/completions"

# No traces are drawn: which request's is, is chance, and what it takes depends on nothing that is counted here.
CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
trusted_proxies = ["127.0.0.1"]
state_dir = "{state}"

[telemetry]
otlp_endpoint = "http://{sink}"
sample_ratio = 0.0

[[upstream]]
name = "backend"
urls = [{urls}]
"""
LIMITS = {"per-user": "user", "per-address": "ip", "per-route": "route", "of-all": "global"}
LIMIT = """
[[limit]]
name = "{name}"
key = "{key}"
tokens_per_minute = {tokens}
"""
TOKENS = 1_000_000_000
ROUTE = """
[[route]]
name = "{name}"
path = "{path}"
targets = [{{ upstream = "backend" }}]
limits = [{limits}]
"""


@dataclass(frozen=True)
class Plan:
    """The points of each curve."""

    users: tuple[int, ...]
    routes: tuple[int, ...]
    endpoints: tuple[int, ...]
    limits: tuple[int, ...]
    reloads: tuple[int, ...]
    requests: int


WHOLE = Plan((10, 1_000, 100_000), (1, 100, 1_000), (1, 50, 500), (0, 1, 2, 3, 4), (0, 100, 1_000), REQUESTS)
QUICK = Plan((10, 200), (1, 50), (1, 10), (0, 4), (0, 5), 50)

# By curve: its points, and the instructions at each.
Curves = dict[str, dict[int, float]]


def measure(binary: Path, directory: Path, quick: bool) -> str:
    """Counts every curve; the result as Markdown."""
    plan = QUICK if quick else WHOLE
    found: Curves = {"users, with a limit on the tokens of each": {}, "routes, of which the last is asked": {}, "endpoints of the upstream": {}}
    users, routes, endpoints = found.values()
    for count in plan.routes:
        with Counted(binary, directory, f"routes-{count}", routes=count) as proxy:
            routes[count] = proxy.requests(plan.requests, lambda _, proxy=proxy: proxy.whole(CHAT))
    for count in plan.endpoints:
        with Counted(binary, directory, f"endpoints-{count}", endpoints=count) as proxy:
            proxy.connect_all(lambda proxy=proxy: proxy.whole(CHAT))
            endpoints[count] = proxy.requests(plan.requests, lambda _, proxy=proxy: proxy.whole(CHAT))
    with Counted(binary, directory, "limits", limits=True) as proxy:
        found["limits of the route"] = {
            count: proxy.requests(plan.requests, lambda _, count=count: proxy.whole(f"/limits-{count}{CHAT}")) for count in plan.limits
        }
        for count in plan.users:
            for user in range(count):
                proxy.whole(f"/limits-1{CHAT}", f"user-{user}")
            # Not one after the other: those that are near each other came at the same time.
            users[count] = proxy.requests(
                plan.requests, lambda turn, count=count: proxy.whole(f"/limits-1{CHAT}", f"user-{turn * 7_919 % count}")
            )
        found["reloads before"] = reloads = {}
        for count in plan.reloads:
            proxy.reload_until(count)
            reloads[count] = proxy.requests(plan.requests, lambda _: proxy.whole(CHAT))
    return told(found)


class Counted:
    """A proxy under callgrind for the length of a `with`, with both its ends. It counts only where it is told to."""

    def __init__(self, binary: Path, directory: Path, name: str, routes: int = 1, endpoints: int = 1, limits: bool = False) -> None:
        self.binary, self.name, self.limits, self.routes = binary, name, limits, routes
        self.ends = Exchange(endpoints)
        self.directory = directory / name
        self.config = self.directory / "config" / "streamgauge.toml"
        self.config.parent.mkdir(parents=True)
        self.port, self.admin, self.reloads = free_port(), free_port(), 0
        self.sink = sink()
        self.running = processes(self.directory)

    def __enter__(self) -> "Counted":
        self.spans = self.sink.__enter__()
        children = self.running.__enter__()
        try:
            self.start(children)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.running.__exit__(None, None, None)
        self.sink.__exit__(None, None, None)

    def start(self, children: Processes) -> None:
        """Starts it, and has it connected and measured at rest."""
        print(f"bench: {self.name}", flush=True)
        self.write_config()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("STREAMGAUGE_", "OTEL_"))}
        out = self.directory / "proxy.out"
        words = [*callgrind.words(out, counting=False), str(self.binary), "run", "--config", str(self.config), "--log", "json"]
        child = children.start("proxy", words, env)
        children.wait(child, lambda: ready(self.admin), "/readyz", START_MAX_S)
        self.callgrind = callgrind.Attached(child, out)
        self.ends.connect(f"127.0.0.1:{self.port}")

    def write_config(self) -> None:
        """The configuration, another one after each reload."""
        urls = ", ".join(f'"http://{backend}"' for backend in self.ends.backends)
        text = CONFIG.format(port=self.port, admin=self.admin, state=self.directory / "state", sink=self.spans, urls=urls)
        names = list(LIMITS) if self.limits else []
        for name in names:
            text += LIMIT.format(name=name, key=LIMITS[name], tokens=TOKENS + self.reloads % 2)
        for count in range(len(names) + 1) if names else ():
            quoted = ", ".join(f'"{name}"' for name in names[:count])
            text += ROUTE.format(name=f"limits-{count}", path=f"/limits-{count}/*", limits=quoted)
        for number in range(self.routes - 1):
            text += ROUTE.format(name=f"app-{number}", path=f"/app-{number}/*", limits="")
        text += ROUTE.format(name="all", path="*", limits="")
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    def whole(self, path: str, user: str = "") -> None:
        """One request."""
        self.ends.whole(path, user)

    def requests(self, count: int, one: Callable[[int], None]) -> float:
        """Instructions of one request of many, less what runs by time and not by request: a slow proxy has more of that."""
        for turn in range(count):
            one(turn)
        self.callgrind.counting(True)
        self.callgrind.taken()
        began = time.monotonic()
        time.sleep(IDLE_S)
        idle = self.callgrind.taken() / (time.monotonic() - began)
        turns = []
        for first in range(0, TURNS * count, count):
            began = time.monotonic()
            for turn in range(first, first + count):
                one(turn)
            seconds = time.monotonic() - began
            turns.append((self.callgrind.taken() - idle * seconds) / count)
        self.callgrind.counting(False)
        if (middle := statistics.median(turns)) <= 0:
            raise Failure("callgrind counted nothing")
        return middle

    def connect_all(self, one: Callable[[], None]) -> None:
        """Requests until no endpoint needs a first connection any more."""
        since = 0
        for _ in range(CONNECTING_MAX):
            before = self.ends.taken
            one()
            since = since + 1 if self.ends.taken == before else 0
            if since == CONNECTED_AFTER:
                return

    def reload_until(self, count: int) -> None:
        """Reloads, each with another configuration, until there were so many."""
        while self.reloads < count:
            self.reloads += 1
            self.write_config()
            asked = urllib.request.Request(f"http://127.0.0.1:{self.admin}/api/reload", method="POST")
            try:
                with urllib.request.urlopen(asked, timeout=START_MAX_S) as answer:
                    answer.read()
            except OSError as problem:
                raise Failure(f"reload {self.reloads}: {problem}") from problem


def told(found: Curves) -> str:
    """The curves, and whether each is flat."""
    parts = []
    for label, points in found.items():
        first = next(iter(points.values()))
        lines = [
            "| " + " | ".join([label, *(f"{at:,}" for at in points)]) + " |", "|---" * (len(points) + 1) + "|",
            "| instructions of a request | " + " | ".join(f"{value:,.0f}" for value in points.values()) + " |",
            "| beside the first | " + " | ".join(f"{value / first - 1:+.1%}" for value in points.values()) + " |",
        ]
        rise = max(points.values()) / first - 1
        verdict = "kept" if rise <= RISE_MAX else f"missed, it rises by {rise:.0%}"
        parts.append(f"{aligned(lines)}\n\nFlat within {RISE_MAX:.0%}: {verdict}.")
    return "\n\n".join(parts)
