#!/usr/bin/env bash
# What Python people do: the wheel of the binary that was tested goes into a fresh environment, and a first answer through the proxy has its
# time to first token. The minutes are counted: docs promise two.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

seconds_max=120
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT

main() {
    local wheel began proxy backend first
    wheel=$(scripts/wheel --tested "$work")
    [[ $(basename "$wheel") == streamgauge-*-py3-none-*.whl ]] || { say "no wheel for every Python 3: $wheel"; return 1; }
    began=$SECONDS
    python3 -m venv "$work/fresh"
    "$work/fresh/bin/python" -m pip install -q --disable-pip-version-check --no-index "$wheel"
    proxy=$work/fresh/bin/streamgauge
    [ "$("$proxy" --version)" = "$(target/debug/streamgauge --version)" ] || { say "another version is in the wheel"; return 1; }

    backend=http://127.0.0.1:$(free_port)
    "$proxy" demo --listen "${backend#http://}" >"$work/backend.log" 2>&1 &
    started_pids+=("$!")
    wait_for "$backend/health" "$!" "the fake backend" "$work/backend.log"
    start_proxy "$proxy" "$work/proxy.log" --upstream "$backend"
    curl -fsS --max-time 30 -o "$work/answer" "$proxy_url/v1/chat/completions" -H 'content-type: application/json' \
        -d '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    grep -c '\[DONE\]' "$work/answer" >/dev/null || { say "the answer is not whole:"; cat "$work/answer" >&2; return 1; }
    first=$(wait_for_line "the request's line" "${started_pids[1]}" "$work/proxy.log" '"ttft_s":([0-9.]+)')
    say "wheel: from pip install to a first token after $first s in $((SECONDS - began)) s"
    [ $((SECONDS - began)) -lt "$seconds_max" ] || { say "more than $seconds_max s"; return 1; }
}

main
