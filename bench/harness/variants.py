"""The ways from load to backend: direct, and through each proxy, tuned as its operators would."""

import os
import resource
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Processes, free_port

WORKERS = 2
OPEN_FILES_MIN, OPEN_FILES_MAX = 16_384, 24_000

NGINX = """\
daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile {files};
pid {dir}/{name}.pid;
error_log stderr error;
events {{ worker_connections {files}; }}
http {{
    {log}
    client_body_temp_path {dir}/{name}-body;
    proxy_temp_path {dir}/{name}-proxy;
    fastcgi_temp_path {dir}/{name}-fastcgi;
    uwsgi_temp_path {dir}/{name}-uwsgi;
    scgi_temp_path {dir}/{name}-scgi;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    upstream backend {{
        server {backend};
        keepalive 256;
        keepalive_timeout 1h;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        listen 127.0.0.1:{http2} http2 backlog=4096 reuseport;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
        location = {websocket} {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "Upgrade";
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

# The fields that Streamgauge's line shares with any access log; buffered, as its writer is.
NGINX_LOG = """\
log_format line escape=json '{{"timestamp":"$time_iso8601","request_id":"$request_id","client":"$remote_addr",'
        '"method":"$request_method","path":"$uri","status":$status,"bytes_in":$request_length,"bytes_out":$bytes_sent,'
        '"duration_s":$request_time,"upstream":"$upstream_addr","upstream_s":"$upstream_response_time",'
        '"first_byte_s":"$upstream_header_time"}}';
    access_log {dir}/{name}.log line buffer=64k flush=1s;"""

HAPROXY = """\
global
    maxconn {streams}
    nbthread {workers}
defaults
    mode http
    maxconn {streams}
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend load
    bind 127.0.0.1:{port} backlog 4096
    bind 127.0.0.1:{http2} backlog 4096 proto h2
    default_backend answers
backend answers
    server backend {backend} pool-max-conn -1
"""

STREAMGAUGE = """\
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
max_connections = {places}
max_streams = {places}
trusted_proxies = ["127.0.0.1"]
state_dir = "{state}"

[telemetry]
otlp_endpoint = "http://{sink}"
sample_ratio = 0.1

[[upstream]]
name = "backend"
url = "http://{backend}"

[[limit]]
name = "per-user"
key = "user"
tokens_per_minute = 1_000_000_000

[[route]]
name = "limited"
path = "{limited}*"
targets = [{{ upstream = "backend" }}]
limits = ["per-user"]

[[route]]
name = "all"
path = "*"
targets = [{{ upstream = "backend" }}]
"""

# Where a WebSocket is asked for, and below which path a limit applies.
WEBSOCKET = "/ws"
LIMITED = "/limited/"


@dataclass
class Variant:
    """A way to the backend, by what it is started with."""

    name: str
    title: str
    target: str
    child: subprocess.Popen | None = None
    admin: int | None = None
    # Where HTTP/2 is spoken without TLS; absent: nowhere.
    http2: str | None = None
    # Whether a part of the paths has a limit on the tokens of each user.
    limits: bool = False
    # What each request needs beside the common headers, as whole lines.
    headers: str = ""
    # Costs so much that it is measured with fewer requests.
    slow: bool = False
    # How often something was measured anew because it failed.
    failed: int = 0
    # Whether it failed so often that it is left out.
    lost: bool = False
    measurements: dict[str, list[dict]] = field(default_factory=dict)


@dataclass
class Ends:
    """Where everything else listens, and where files go."""

    dir: Path
    backend: str
    sink: str
    # Their processes.
    pids: tuple[int, ...] = ()

    def fresh(self, name: str) -> Path:
        """A new directory for one start of a proxy: what an earlier one left is not seen."""
        taken = sum(1 for _ in self.dir.glob(f"{name}-[0-9]*"))
        path = self.dir / f"{name}-{taken}"
        path.mkdir()
        return path


def limits() -> dict[str, int]:
    """Bounds that no run reaches: a stream is two sockets in a proxy."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    streams = (files - 384) // 2
    return {"workers": WORKERS, "streams": streams, "places": 2 * streams, "files": files}


def direct(ends: Ends) -> Variant:
    """No proxy."""
    return Variant("direct", "direct", ends.backend)


def nginx(children: Processes, ends: Ends, program: tuple[str, dict[str, str]], log: bool) -> Variant:
    """nginx, with or without its access log."""
    name, title = ("nginx-log", "nginx with access log") if log else ("nginx", "nginx")
    port, http2, into = free_port(), free_port(), ends.fresh(name)
    path = into / "nginx.conf"
    paths = {"dir": into, "name": name}
    text = NGINX.format(
        user="user root;" if os.geteuid() == 0 else "",
        log=NGINX_LOG.format(**paths) if log else "access_log off;",
        port=port, http2=http2, websocket=WEBSOCKET, backend=ends.backend, **paths, **limits(),
    )
    path.write_text(text)
    words = [program[0], "-p", str(into), "-e", "stderr", "-c", str(path)]
    child = children.start(name, words, program[1])
    children.wait_for_port(child, port)
    return Variant(name, title, f"127.0.0.1:{port}", child, http2=f"127.0.0.1:{http2}")


def haproxy(children: Processes, ends: Ends, program: tuple[str, dict[str, str]]) -> Variant:
    """HAProxy in the foreground, as one process."""
    port, http2, path = free_port(), free_port(), ends.fresh("haproxy") / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=port, http2=http2, backend=ends.backend, **limits()))
    child = children.start("haproxy", [program[0], "-db", "-f", str(path)], program[1])
    children.wait_for_port(child, port)
    return Variant("haproxy", "HAProxy", f"127.0.0.1:{port}", child, http2=f"127.0.0.1:{http2}")


def bare(children: Processes, ends: Ends, binary: Path) -> Variant:
    """pingora's own proxy, which adds nothing: the engine's share of what Streamgauge costs."""
    port = free_port()
    child = children.start("bare", [str(binary), f"127.0.0.1:{port}", ends.backend, str(WORKERS)])
    children.wait_for_port(child, port)
    return Variant("bare", "bare pingora", f"127.0.0.1:{port}", child)


def streamgauge(children: Processes, ends: Ends, binary: Path, name: str = "streamgauge", title: str = "Streamgauge") -> Variant:
    """Streamgauge with all its telemetry: metrics, JSON log to a file, a tenth of traces exported."""
    port, admin = free_port(), free_port()
    # By itself: the directory of a configuration is watched, and a log beside it would wake the watcher with each line.
    into = ends.fresh(name)
    path = into / "config" / "streamgauge.toml"
    path.parent.mkdir()
    text = STREAMGAUGE.format(
        port=port, admin=admin, backend=ends.backend, sink=ends.sink, state=into / "state", limited=LIMITED, **limits()
    )
    path.write_text(text)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("STREAMGAUGE_", "OTEL_"))}
    child = children.start(name, [str(binary), "run", "--config", str(path), "--log", "json"], env)
    children.wait(child, lambda: ready(admin), "/readyz")
    target = f"127.0.0.1:{port}"
    return Variant(name, title, target, child, admin, http2=target, limits=True)


def before(children: Processes, ends: Ends, binary: Path) -> Variant:
    """An older Streamgauge, in the same way."""
    return streamgauge(children, ends, binary, "before", "Streamgauge before")


def ready(admin: int) -> bool:
    """Whether Streamgauge says that it can serve."""
    return answers(f"http://127.0.0.1:{admin}/readyz")


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False
