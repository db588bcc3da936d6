"""One trace from a client's span through Streamgauge's three to the instrumented app's own.
Usage: joined_traces.py BINARY [NODE]

The client is the OpenTelemetry SDK of Python, as an app's own front end has it; with NODE, the one of JavaScript on a page in
a browser. All spans reach one OTLP collector, which is this program."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

HERE = Path(__file__).resolve().parent
FOUND = queue.Queue()
SERVER, CLIENT = 2, 3


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces", self.path
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    FOUND.put((names.get("service.name"), span))
        self.answer()

    def do_OPTIONS(self):
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        # A page is of another origin.
        self.send_header("access-control-allow-origin", "*")
        self.send_header("access-control-allow-headers", "content-type")
        self.end_headers()

    def log_message(self, *_):
        pass


def start(command, wanted, **more):
    """Starts a program; it and what the line says that `wanted` understands. Its other lines are read away."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if (found := wanted(line)) is not None:
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return process, found
    raise SystemExit(f"{command[0]} did not start:\n{''.join(lines)}")


def uvicorn_url(line):
    return line.split("running on ")[1].split()[0] if "running on http" in line else None


def proxy_url(line):
    said = json.loads(line) if line.startswith("{") else {}
    return said["frontend_urls"][0] if said.get("event") == "started" else None


def attributes(span):
    return {pair.key: pair.value for pair in span.attributes}


# The front end is the app's own: its traces are continued, and its sampling decision holds.
TRUSTED = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'

# Browsers are strangers. What they begin is continued all the same, and what is sampled decided here.
STRANGERS = r"""[server]
continue_traces = "always"
[telemetry]
sample_ratio = 1.0
[cors]
origin_patterns = ['http://127\.0\.0\.1:\d+']
"""


def main(binary, node=None):
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent / "examples" / "fastapi")])
    started = []
    with tempfile.TemporaryDirectory() as work:
        try:
            app, url = start(
                [sys.executable, "-m", "uvicorn", "traced_app:app", "--host", "127.0.0.1", "--port", "0"],
                uvicorn_url,
                env={**environment, "PYTHONPATH": path},
            )
            started.append(app)
            config = Path(work) / "streamgauge.toml"
            rules = STRANGERS if node else TRUSTED
            config.write_text(f'{rules}[[upstream]]\nname = "app"\nurl = "{url}"\n')
            proxy, url = start(
                [binary, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json", "--config", config],
                proxy_url,
                env=environment,
            )
            started.append(proxy)
            check(*(click_in_browser(node, url, endpoint) if node else click(url)), bool(node))
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()
            collector.shutdown()


def click(url):
    """Asks as an instrumented program would; the ids of the trace and of its span in it."""
    tracer = TracerProvider().get_tracer("front end")
    with tracer.start_as_current_span("click", kind=trace.SpanKind.CLIENT) as span:
        headers = {"tracestate": "shop=1"}
        propagate.inject(headers)
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20)
        answer.raise_for_status()
        assert answer.text.endswith("data: [DONE]\n\n"), answer.text
    context = span.get_span_context()
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")


def click_in_browser(node, url, collector):
    """The same from a page."""
    command = [node, str(HERE / "node" / "browser_trace.mjs"), url, collector]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout)
    return bytes.fromhex(told["traceId"]), bytes.fromhex(told["spanId"])


def check(trace_id, above, by_page):
    spans = []
    levels = [
        ("streamgauge", SERVER, "POST /v1/chat/completions"),
        ("streamgauge", CLIENT, "chat m"),
        ("streamgauge", CLIENT, "POST"),
        ("app", SERVER, "POST /v1/chat/completions"),
    ]
    if by_page:
        levels.insert(0, ("page", CLIENT, "POST"))
    for service, kind, name in levels:
        while not (below := [one for one in spans if one[1].parent_span_id == above and one[1].kind == kind]):
            try:
                spans.append(FOUND.get(timeout=20))
            except queue.Empty:
                found = [(of, one.name, one.kind) for of, one in spans]
                raise SystemExit(f"no span of {service} named {name} below the one before it, of {found}") from None
        [(of, span)] = below
        assert (of, span.name) == (service, name), (of, span.name, service, name)
        assert span.trace_id == trace_id, "another trace"
        above = span.span_id
    _, logical = next(one for one in spans if one[1].name == "chat m")
    found = attributes(logical)
    assert found["gen_ai.request.model"].string_value == "m"
    assert found["gen_ai.response.time_to_first_chunk"].double_value > 0
    print(f"one trace: click > {' > '.join(f'{service} {name}' for service, _, name in levels)}")


main(*sys.argv[1:])
