"""Runs the load and collects what it prints."""

import json
import re
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .failure import Failure
from .variants import Variant

LOAD_MAX_S = 120


@dataclass
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    firsts: int
    steps: str


WHOLE = Plan(rounds=5, seconds=2.0, firsts=2_000, steps="100,1000,5000")
QUICK = Plan(rounds=1, seconds=1.0, firsts=500, steps="100,1000")


def measure(loadgen: Path, variants: list[Variant], plan: Plan) -> None:
    """Fills each variant's measurements: memory while the proxies are fresh, then rounds in changing order."""
    for variant in variants:
        if variant.child is not None:
            one(loadgen, variant, "hold", ["--steps", plan.steps])
    for turn in range(plan.rounds):
        shift = turn % len(variants)
        order = variants[shift:] + variants[:shift]
        # Each comes after another one every time: what one still has to do must not always disturb the same next.
        for variant in reversed(order) if turn % 2 else order:
            one(loadgen, variant, "json", ["--seconds", str(plan.seconds)])
            one(loadgen, variant, "events", ["--seconds", str(plan.seconds)])
            one(loadgen, variant, "ttft", ["--requests", str(plan.firsts)])
        print(f"bench: round {turn + 1} of {plan.rounds} done")


def one(loadgen: Path, variant: Variant, mode: str, options: list[str]) -> None:
    """One measurement of one variant."""
    words = [str(loadgen), mode, "--target", variant.target, *options]
    if variant.child is not None and mode != "ttft":
        words += ["--pid", str(variant.child.pid)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LOAD_MAX_S)
    except subprocess.TimeoutExpired as problem:
        raise Failure(f"{mode} through {variant.title} took more than {LOAD_MAX_S} s") from problem
    if done.returncode != 0:
        raise Failure(f"{mode} through {variant.title}: {done.stderr.strip()}")
    variant.measurements.setdefault(mode, []).append(json.loads(done.stdout))


def prove_telemetry(variant: Variant, sink: str, log: Path) -> str:
    """Streamgauge was measured with its telemetry at work, or the run is worth nothing. Returns what it made."""
    least = sum(run["requests"] for mode in ("json", "ttft") for run in variant.measurements[mode])
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
