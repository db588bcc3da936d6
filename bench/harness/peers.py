"""Other gateways in front of the same backend, and the openai SDK as the client of each: LiteLLM and SGLang's router from PyPI, Portkey
from npm, Caddy from Debian. What is in none of these is not measured."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import variants
from .failure import Failure
from .measure import Bench, Plan, Start, orders, prove_telemetry
from .processes import Processes, free_port
from .report import Row, Table, added, per_stream, plain, told_rounds
from .variants import Ends, Variant

INSTALL_MAX_S, START_MAX_S, SDK_MAX_S = 1_200, 300, 300
# The same load for all, which the slowest can bear.
CONNECTIONS, STREAMS, RATE, HELD = 16, 50, 10, "100"
# Requests one after the other, by the bench's own client and by the SDK; of a slow one fewer.
FIRSTS, FIRSTS_SLOW, ASKED, ASKED_SLOW = 1_000, 50, 200, 30
SLOWER = 3
# A gateway may cut a stream short, or fail a request: what is measured then is measured anew, so often at most, and told.
TRIES_MAX = 5

CADDY = """\
{{
    admin off
    auto_https off
    log {{
        output discard
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {backend} {{
        transport http {{
            versions 1.1
            keepalive_idle_conns_per_host 256
        }}
    }}
}}
"""

LITELLM = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://{backend}/v1
      api_key: unused
litellm_settings:
  num_retries: 0
  telemetry: false
general_settings:
  # It listens on loopback, for as long as the run lasts.
  dangerously_permit_weak_or_unset_master_key: true
"""


@dataclass(frozen=True)
class Installed:
    """Where what was installed is."""

    python: Path
    node: Path
    packages: Path
    # What has Portkey listen on loopback alone, for which it has no option.
    loopback: Path
    sdk: Path

    def versions(self) -> list[str]:
        """What was installed, by version."""
        names = ("litellm", "sglang-router", "openai")
        script = "import importlib.metadata as m, sys; print(*(n + ' ' + m.version(n) for n in sys.argv[1:]), sep='; ')"
        done = subprocess.run([self.python, "-c", script, *names], capture_output=True, text=True, check=True)
        portkey = json.loads((self.packages / "@portkey-ai/gateway/package.json").read_text())
        return [*done.stdout.strip().split("; "), f"@portkey-ai/gateway {portkey['version']}"]


def install(root: Path) -> Installed:
    """Installs what is not there yet."""
    try:
        done = subprocess.run([root / "scripts/setup", "peers"], check=False, timeout=INSTALL_MAX_S)
    except subprocess.TimeoutExpired as problem:
        raise Failure(f"scripts/setup peers took more than {INSTALL_MAX_S} s") from problem
    if done.returncode != 0:
        raise Failure("scripts/setup peers failed")
    cache = root / ".cache/bench"
    return Installed(
        python=cache / "peers/bin/python", node=cache / "node", packages=cache / "peers-node/node_modules",
        loopback=root / "bench/peers/loopback.cjs", sdk=root / "bench/peers/first_token.py",
    )


def starts(children: Processes, ends: Ends, debian: dict, others: Installed, proxy: Path | None) -> list[Start]:
    """What is measured, each by what starts it; Streamgauge is the last."""
    found = [
        partial(variants.direct, ends),
        partial(variants.nginx, children, ends, debian["nginx"], log=False),
        partial(variants.haproxy, children, ends, debian["haproxy"]),
        partial(caddy, children, ends, debian["caddy"]),
        partial(sglang, children, ends, others),
        partial(portkey, children, ends, others),
        partial(litellm, children, ends, others),
    ]
    if proxy:
        found.append(partial(variants.streamgauge, children, ends, proxy))
    return found


def caddy(children: Processes, ends: Ends, program: tuple[str, dict[str, str]]) -> Variant:
    """Caddy's reverse proxy, which flushes event streams at once by itself."""
    port, into = free_port(), ends.fresh("caddy")
    config = into / "Caddyfile"
    config.write_text(CADDY.format(port=port, backend=ends.backend))
    homes = {name: str(into) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    words = [program[0], "run", "--adapter", "caddyfile", "--config", str(config)]
    child = children.start("caddy", words, program[1] | homes)
    children.wait_for_port(child, port)
    return Variant("caddy", "Caddy", f"127.0.0.1:{port}", child)


def sglang(children: Processes, ends: Ends, others: Installed) -> Variant:
    """SGLang's router before one worker."""
    port, metrics = free_port(), free_port()
    words = [
        str(others.python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port),
        "--worker-urls", f"http://{ends.backend}", "--policy", "random", "--log-level", "error",
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics),
    ]
    child = children.start("sglang", words)
    # It listens before it knows its worker.
    children.wait(child, lambda: variants.answers(f"http://127.0.0.1:{port}/readiness"), "/readiness", START_MAX_S)
    return Variant("sglang", "SGLang's router", f"127.0.0.1:{port}", child)


def portkey(children: Processes, ends: Ends, others: Installed) -> Variant:
    """Portkey's gateway, which is told by headers where to go. The HTTP server beneath it is an older one than npm would take: with the
    newest every stream is answered with 500."""
    port = free_port()
    script = others.packages / "@portkey-ai/gateway/build/start-server.js"
    words = [str(others.node), "--require", str(others.loopback), str(script), f"--port={port}", "--headless"]
    child = children.start("portkey", words, {**os.environ, "NODE_ENV": "production"})
    children.wait_for_port(child, port, START_MAX_S)
    headers = f"x-portkey-provider: openai\nx-portkey-custom-host: http://{ends.backend}/v1\nauthorization: Bearer unused"
    return Variant("portkey", "Portkey", f"127.0.0.1:{port}", child, headers=headers, slow=True)


def litellm(children: Processes, ends: Ends, others: Installed) -> Variant:
    """LiteLLM's proxy with one worker, without a database."""
    port, path = free_port(), ends.fresh("litellm") / "litellm.yaml"
    path.write_text(LITELLM.format(backend=ends.backend))
    program = others.python.with_name("litellm")
    words = [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    env = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    child = children.start("litellm", words, env)
    children.wait_for_port(child, port, START_MAX_S)
    return Variant("litellm", "LiteLLM", f"127.0.0.1:{port}", child, slow=True)


def measure(bench: Bench, starts: list[Start], others: Installed, plan: Plan) -> str:
    """Memory of fresh gateways, then rounds in changing order; the result as Markdown."""
    fresh = [start() for start in starts[:1]]
    for start in starts[1:]:
        variant = start()
        lasting(variant, lambda variant=variant: again(variant, lambda: bench.note(variant, "hold", "hold", ["--steps", HELD])))
        bench.children.stop(variant.child)
        fresh.append(variant)
    found = []
    for start, earlier in zip(starts, fresh, strict=True):
        if not earlier.lost:
            found.append(start())
            found[-1].measurements |= earlier.measurements
            found[-1].failed = earlier.failed
    for order in orders(found, plan.rounds):
        for variant in order:
            if not variant.lost:
                lasting(variant, lambda variant=variant: one_round(bench, variant, others, plan))
    lost = [variant for variant in (*fresh, *found) if variant.lost]
    text = report([variant for variant in found if not variant.lost], plan.rounds, lost)
    if found[-1].name == "streamgauge":
        made = prove_telemetry(found[-1], bench.ends.sink, bench.ends.dir / "streamgauge.out")
        text += f"\n\nStreamgauge's telemetry in this run: {made}."
    return text


def one_round(bench: Bench, variant: Variant, others: Installed, plan: Plan) -> None:
    """Everything that is measured in each round."""
    seconds = ["--seconds", str(plan.seconds * (SLOWER if variant.slow else 1))]
    firsts, asked = (FIRSTS_SLOW, ASKED_SLOW) if variant.slow else (FIRSTS, ASKED)
    for mode, command, options in (
        ("json", "json", [*seconds, "--connections", str(CONNECTIONS)]),
        ("events", "events", [*seconds, "--streams", str(STREAMS), "--rate", str(RATE)]),
        ("ttft", "ttft", ["--requests", str(firsts), "--warmup", str(firsts // 10)]),
    ):
        again(variant, lambda mode=mode, command=command, options=options: bench.note(variant, mode, command, options))
    again(variant, lambda: variant.measurements.setdefault("sdk", []).append(ask_by_sdk(variant, others, asked)))


def lasting(variant: Variant, measured: Callable[[], None]) -> None:
    """Leaves a gateway out that cannot be measured. Streamgauge may not be."""
    try:
        measured()
    except Failure as failure:
        if variant.name == "streamgauge":
            raise
        variant.lost = True
        print(f"bench: left out: {failure}", flush=True)


def again(variant: Variant, measured: Callable[[], None]) -> None:
    """Measures once more where a gateway failed. Streamgauge may not."""
    for turn in range(TRIES_MAX):
        try:
            return measured()
        except Failure as failure:
            variant.failed += 1
            if variant.name == "streamgauge" or turn == TRIES_MAX - 1:
                raise
            print(f"bench: measured anew: {failure}", flush=True)


def ask_by_sdk(variant: Variant, others: Installed, count: int) -> dict:
    """The first token as the openai SDK sees it."""
    words = [str(others.python), str(others.sdk), variant.target, str(count), variant.headers]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SDK_MAX_S)
    except subprocess.TimeoutExpired as problem:
        raise Failure(f"the openai SDK through {variant.title} took more than {SDK_MAX_S} s") from problem
    if done.returncode != 0:
        raise Failure(f"the openai SDK through {variant.title}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def report(found: list[Variant], count: int, lost: list[Variant]) -> str:
    """The table, a gateway a line, and what it is of."""
    table = Table(found, [
        Row("CPU µs per small request", plain("json", "cpu_us")),
        Row("requests per second", plain("json", "per_second"), more_is_better=True),
        Row("CPU µs per streamed event", plain("events", "cpu_us")),
        Row("added ms to the first token, p50", added("ttft", "p50_us", 1e-3)),
        Row("openai SDK: ms to the first token, p50", plain("sdk", "p50_us", 1e-3)),
        Row("openai SDK: ms to the first token, p99", plain("sdk", "p99_us", 1e-3)),
        Row("KiB per live stream, at 100", per_stream(HELD)),
    ])
    load = f"{CONNECTIONS} connections; {STREAMS} streams of {RATE} events a second"
    failed = ", ".join(f"{variant.title} ({variant.failed})" for variant in found if variant.failed)
    told = f" Measured anew, because a stream was cut short or a request failed: {failed}." if failed else ""
    if lost:
        told += f" Left out, because it failed {TRIES_MAX} times at one measurement: {', '.join(variant.title for variant in lost)}."
    return f"{table.by_variant()}\n\nThe same load for all: {load}. Ratios are to nginx. {told_rounds(count)}{told}"
