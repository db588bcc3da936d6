"""Runs the load and collects what it prints."""

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import cores
from .failure import Failure
from .processes import Processes
from .variants import LIMITED, WEBSOCKET, Ends, Variant

LOAD_MAX_S = 180
# Streams, and the events a second of each: all in all some 2,500 to 5,000.
STREAMS = {50: 50, 100: 50, 200: 25, 4_000: 1}
# The users whose tokens are limited.
USERS = 32
# So many connections keep one core busy.
CORE_CONNECTIONS = 64
# An event of each of very many streams every two seconds.
MANY_RATE, MANY_SECONDS = 0.5, 6

Start = Callable[[], Variant]


@dataclass
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    firsts: int
    steps: str
    idle: int
    streams: dict[int, int]


WHOLE = Plan(rounds=5, seconds=2.0, firsts=2_000, steps="100,1000,5000", idle=2_000, streams=STREAMS)
QUICK = Plan(rounds=1, seconds=1.0, firsts=500, steps="100,1000", idle=500, streams={100: 50, 200: 25})


@dataclass
class Bench:
    """What measures."""

    loadgen: Path
    children: Processes
    ends: Ends

    def measure(self, starts: list[Start], plan: Plan) -> list[Variant]:
        """Memory of proxies that are fresh, then rounds in changing order; the variants with what was measured."""
        held = [self.memory(start, plan) for start in starts]
        variants = [start() for start in starts]
        for variant, memory in zip(variants, held, strict=True):
            variant.measurements |= memory
        for order in orders(variants, plan.rounds):
            for variant in order:
                self.one_round(variant, plan)
        return variants

    def memory(self, start: Start, plan: Plan) -> dict[str, list[dict]]:
        """What a proxy holds for streams and for connections, each told by one that did nothing before."""
        held: dict[str, list[dict]] = {}
        idle = ["--connections", str(plan.idle), "--kind"]
        for mode, command, options in (
            ("hold", "hold", ["--steps", plan.steps]),
            ("idle-http1", "idle", [*idle, "http1"]),
            ("idle-http2", "idle", [*idle, "http2"]),
            ("idle-websocket", "idle", [*idle, "websocket", "--path", WEBSOCKET]),
        ):
            variant = start()
            if variant.child is None:
                break
            if mode != "idle-http2" or variant.http2 is not None:
                target = variant.http2 if mode == "idle-http2" else variant.target
                try:
                    held[mode] = [self.one(variant, command, options, target=target)]
                except Failure as failure:
                    # The bare proxy may not pass an upgrade on, and is of interest for other lines.
                    if variant.name != "bare" or mode == "hold":
                        raise
                    print(f"bench: not measured: {failure}", flush=True)
            self.children.stop(variant.child)
        return held

    def one_round(self, variant: Variant, plan: Plan) -> None:
        """Everything that is measured in each round."""
        seconds = ["--seconds", str(plan.seconds)]
        self.note(variant, "json", "json", seconds)
        if variant.limits:
            limited = ["--path", f"{LIMITED}v1/chat/completions", "--users", str(USERS)]
            self.note(variant, "json-limited", "json", [*seconds, *limited])
        if variant.child is not None and len(os.sched_getaffinity(0)) > 1:
            with cores.apart(variant.child.pid, self.ends.pids) as rest:
                self.note(variant, "json-core", "json", [*seconds, "--connections", str(CORE_CONNECTIONS)], on=rest)
        for streams, rate in plan.streams.items():
            # Without a proxy there is no cost: only how long events take is of interest.
            if variant.child is not None or streams in (100, 4_000):
                self.note(variant, f"events-{streams}", "events", [*seconds, "--streams", str(streams), "--rate", str(rate)])
        self.note(variant, "ttft", "ttft", ["--requests", str(plan.firsts)])

    def many(self, variants: list[Variant], streams: int, rounds: int) -> None:
        """Very many live streams."""
        options = ["--streams", str(streams), "--rate", str(MANY_RATE), "--seconds", str(MANY_SECONDS)]
        for order in orders(variants, rounds):
            for variant in order:
                self.note(variant, "many", "events", options)

    def note(self, variant: Variant, mode: str, command: str, options: list[str], on: set[int] | None = None) -> None:
        """One more measurement of a variant, by its mode."""
        variant.measurements.setdefault(mode, []).append(self.one(variant, command, options, on=on))

    def one(
        self, variant: Variant, command: str, options: list[str], target: str | None = None, on: set[int] | None = None
    ) -> dict:
        """What the load says of a variant; the load may be kept on some cores."""
        words = [str(self.loadgen), command, "--target", target or variant.target, *options]
        if variant.headers:
            words += ["--headers", variant.headers]
        if variant.child is not None and command != "ttft":
            words += ["--pid", str(variant.child.pid)]
        keep = (lambda: os.sched_setaffinity(0, on)) if on else None
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=LOAD_MAX_S, preexec_fn=keep
            )
        except subprocess.TimeoutExpired as problem:
            raise Failure(f"{command} through {variant.title} took more than {LOAD_MAX_S} s") from problem
        if done.returncode != 0:
            raise Failure(f"{' '.join([command, *options])} through {variant.title}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def start_ends(children: Processes, loadgen: Path, directory: Path) -> Ends:
    """Starts the backend and the OTLP sink."""
    addresses, pids = {}, []
    for name in ("backend", "sink"):
        child = children.start(name, [str(loadgen), name])
        output = directory / f"{name}.out"
        children.wait(child, lambda output=output: output.read_text().endswith("\n"), "its address")
        addresses[name] = output.read_text().strip()
        pids.append(child.pid)
    return Ends(directory, **addresses, pids=tuple(pids))


def orders(variants: list[Variant], rounds: int):
    """Each round's order: each comes after another one every time, so that what one still has to do does not always disturb the
    same next."""
    for turn in range(rounds):
        shift = turn % len(variants)
        order = variants[shift:] + variants[:shift]
        yield list(reversed(order)) if turn % 2 else order
        print(f"bench: round {turn + 1} of {rounds} done", flush=True)


def prove_telemetry(variant: Variant, sink: str, log: Path) -> str:
    """Streamgauge was measured with its telemetry at work, or the run is worth nothing. Returns what it made."""
    least = sum(run["requests"] for runs in variant.measurements.values() for run in runs if "requests" in run)
    # The log's writer and the exporter have a moment for what they still hold.
    deadline = time.monotonic() + 10
    while True:
        counted = counted_requests(variant)
        lines = log.read_bytes().count(b'"event":"llm.request"')
        taken = json.loads(get(f"http://{sink}/"))
        if min(counted, lines) >= least and taken["posts"] > 0:
            return f"{counted} requests in /metrics, {lines} log lines, {taken['bytes']} bytes of OTLP in {taken['posts']} posts"
        if time.monotonic() > deadline:
            raise Failure(
                f"telemetry is missing: of {least} requests {counted} are in /metrics and {lines} in the log; "
                f"the OTLP sink took {taken['posts']} posts"
            )
        time.sleep(0.2)


def counted_requests(variant: Variant) -> int:
    """Requests of all outcomes in /metrics."""
    text = get(f"http://127.0.0.1:{variant.admin}/metrics")
    return sum(int(float(value)) for value in re.findall(r"^streamgauge_requests_total\{.*\} (\S+)$", text, re.M))


def get(url: str) -> str:
    """The body of a GET."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()
