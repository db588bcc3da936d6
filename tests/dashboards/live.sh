#!/usr/bin/env bash
# Runs Streamgauge before fake backends that do everything which a dashboard shows, lets a real Prometheus scrape it, and asks
# every query of the dashboards and rules. Usage: live.sh BINARY
set -euo pipefail
. scripts/lib.sh
binary=$1
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT

# Sets backend_url.
start_backend() { # NAME KNOBS
    "$binary" demo --listen 127.0.0.1:0 --knobs "$2" >"$work/$1.log" 2>&1 &
    started_pids+=("$!")
    backend_url=$(wait_for_line "the backend $1" "$!" "$work/$1.log" 'listens at (http:[^ ]*[0-9])\.')
}

start_backend today "tokens=6&gap_ms=2&ttft_ms=5"; today=$backend_url
start_backend slow "tokens=6&gap_ms=2&ttft_ms=400"; slow=$backend_url
start_backend bad "status=500"; bad=$backend_url
start_backend busy "status=429"; busy=$backend_url
start_backend worse "tokens=6&gap_ms=2&ttft_ms=5&fail_percent=70"; worse=$backend_url
python3 tests/dashboards/held_back.py >"$work/held.log" 2>&1 &
started_pids+=("$!")
held=$(wait_for_line "the backend held" "$!" "$work/held.log" 'listens at (http:[^ ]*[0-9])\.')
start_fastapi "$work/app.log"
# Nobody listens there.
closed=http://127.0.0.1:$(free_port)

redis_port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
redis_pid=$!
started_pids+=("$redis_pid")
wait_for_line Redis "$redis_pid" "$work/redis.log" '(Ready to accept)' >/dev/null

cat >"$work/streamgauge.toml" <<END
[server]
state_dir = "$work/state"
# The driver plays many users.
trusted_proxies = ["127.0.0.1"]

[telemetry]
# Without a collector: for the exemplars in /metrics.
sample_ratio = 1.0
slow_gap = "200ms"

[limits]
redis = "redis://127.0.0.1:$redis_port"

[identity.jwt]
jwks_url = "$closed/keys"

[[limit]]
name = "tight"
key = "global"
tokens_per_minute = 100_000
requests_per_minute = 10

[[price]]
model = "demo-cheap"
input = 0.1
output = 0.1

[[price]]
model = "demo-dear"
input = 50.0
output = 50.0

[[price]]
model = "demo*"
input = 2.5
output = 10.0

[[upstream]]
name = "today"
url = "$today"

[[upstream]]
name = "next"
url = "$today"

[[upstream]]
name = "half"
urls = ["$closed", "$today"]
health = { path = "/health", interval = "1s" }
affinity = { headers = ["x-session-id"] }

[[upstream]]
name = "slow"
url = "$slow"

[[upstream]]
name = "bad"
url = "$bad"

[[upstream]]
name = "busy"
url = "$busy"

[[upstream]]
name = "worse"
url = "$worse"

[[upstream]]
name = "held"
url = "$held"

[[upstream]]
name = "app"
url = "$app_url"

[[route]]
name = "chat"
path = "/chat/*"
targets = [{ upstream = "today", path = "/" }]
timeouts = { first_token = "500ms", stall = "500ms" }
failover = "never"

[[route]]
name = "failover"
path = "/failover/*"
targets = [{ upstream = "half", path = "/" }, { upstream = "busy", path = "/" }]
fallback = [{ upstream = "today", path = "/" }]
sticky = "none"

[[route]]
name = "hedge"
path = "/hedge/*"
targets = [{ upstream = "slow", path = "/" }]
fallback = [{ upstream = "today", path = "/" }]
hedge_after = "50ms"

[[route]]
name = "down"
path = "/down/*"
targets = [{ upstream = "bad", path = "/" }]

[[route]]
name = "copied"
path = "/copied/*"
targets = [{ upstream = "today", path = "/" }]
shadow = { upstream = "slow", percent = 100, path = "/" }

[[route]]
name = "held"
path = "/held/*"
targets = [{ upstream = "held", path = "/" }]

[[route]]
name = "small"
path = "/sized/*"
prompt_tokens = "<100"
targets = [{ upstream = "today", path = "/", model = "demo-cheap" }]

[[route]]
name = "sized"
path = "/sized/*"
prompt_tokens = ">=1000"
targets = [{ upstream = "today", path = "/", model = "demo-dear" }]

[[route]]
name = "usual"
path = "/sized/*"
targets = [{ upstream = "today", path = "/" }]

[[route]]
name = "limited"
path = "/limited/*"
targets = [{ upstream = "today", path = "/" }]
limits = ["tight"]

[[route]]
name = "steps"
path = "/steps/*"
targets = [{ upstream = "today", path = "/" }, { upstream = "next", path = "/" }]
sticky = "none"
canary = { target = "next", steps = [30, 40, 50, 60, 70, 80, 90, 100], step_time = "1s", min_requests = 5 }

[[route]]
name = "rollback"
path = "/rollback/*"
targets = [{ upstream = "today", path = "/" }, { upstream = "worse", path = "/" }]
sticky = "none"
canary = { target = "worse", steps = [50, 100], step_time = "1s", min_requests = 20 }

[[route]]
name = "app"
path = "/ws/*"
targets = [{ upstream = "app" }]
END
start_proxy "$binary" "$work/proxy.log" --config "$work/streamgauge.toml"

# The rules as they are, but evaluated more often than once a minute.
for rules in slo alerts; do sed -E 's/^( +)interval: .*/\1interval: 1s/' "dashboards/prometheus/$rules.yml" >"$work/$rules.yml"; done
cat >"$work/prometheus.yml" <<END
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [slo.yml, alerts.yml]
scrape_configs:
  - job_name: streamgauge
    static_configs: [{ targets: ["${admin_url#http://}"] }]
END
start_prometheus "$work"

$venv/bin/python tests/dashboards/drive.py "$proxy_url" "$admin_url" "$prometheus" "$work/streamgauge.toml" "$redis_pid"
