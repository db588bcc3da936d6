# A proxy before backends of every temper, for the live view. To be read in after scripts/lib.sh; sets proxy_url, admin_url and scene_pid.

# Sets backend_url.
start_demo() { # BINARY LOG KNOBS
    "$1" demo --listen 127.0.0.1:0 --knobs "$3" >"$2" 2>&1 &
    started_pids+=("$!")
    backend_url=$(wait_for_line "the demo backend" "$!" "$2" 'listens at (http:[^ ]*[0-9])\.')
}

start_scene() { # BINARY DIRECTORY
    local binary=$1 work=$2 fast slow broken next
    start_demo "$binary" "$work/fast.log" 'ttft_ms=300&gap_ms=50&tokens=120' && fast=$backend_url
    start_demo "$binary" "$work/slow.log" 'headers_ms=900&ttft_ms=2600&gap_ms=140&tokens=60' && slow=$backend_url
    start_demo "$binary" "$work/broken.log" 'status=503' && broken=$backend_url
    start_demo "$binary" "$work/next.log" 'ttft_ms=260&gap_ms=45&tokens=110' && next=$backend_url
    cat > "$work/scene.toml" <<END
[server]
trusted_proxies = ["127.0.0.1"]
state_dir = "$work/state"
[telemetry]
slow_first_token = "2s"
slow_gap = "1s"
[[upstream]]
name = "vllm-a"
url = "$fast"
[[upstream]]
name = "vllm-next"
url = "$next"
[[upstream]]
name = "reasoner"
url = "$slow"
[[upstream]]
name = "edge"
url = "$broken"
[[limit]]
name = "per-user"
key = "user"
tokens_per_minute = 20_000
output_cap = 500
[[route]]
name = "reasoning"
path = "/v1/messages"
targets = [{ upstream = "reasoner" }]
limits = ["per-user"]
timeouts = { stall = "6s" }
[[route]]
name = "chat"
path = "/v1/*"
targets = [{ upstream = "vllm-a" }, { name = "next", upstream = "vllm-next" }]
canary = { target = "next", steps = [20, 50, 100], step_time = "5m", min_requests = 20 }
sticky = "none"
limits = ["per-user"]
timeouts = { stall = "6s" }
[[route]]
name = "search"
path = "/api/v1/*"
targets = [{ upstream = "edge" }]
fallback = [{ upstream = "vllm-a" }]
[[route]]
name = "copied"
path = "/copied/*"
targets = [{ upstream = "vllm-a", path = "/" }]
shadow = { upstream = "vllm-next", percent = 100, path = "/" }
[[route]]
name = "all"
targets = [{ upstream = "vllm-a" }]
[[price]]
model = "demo*"
input = 2.5
output = 10.0
END
    start_proxy "$binary" "$work/scene.log" --config "$work/scene.toml"
    scene_pid=${started_pids[-1]}
}
