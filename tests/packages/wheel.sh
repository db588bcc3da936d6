#!/usr/bin/env bash
# What Python people do: the wheel of the binary that was tested goes into a fresh environment, finds a FastAPI app, and a first answer of that
# app has its anatomy. Nothing but Python is used, and no network; the time is counted: docs promise two minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

seconds_max=120
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT

main() {
    local wheel began proxy python=$work/fresh/bin/python
    wheel=$(scripts/wheel --tested "$work")
    [[ $(basename "$wheel") == streamgauge-*-py3-none-*.whl ]] || { say "no wheel for every Python 3: $wheel"; return 1; }
    # The app is there before: somebody's own.
    scripts/setup app
    start_fastapi "$work/app.log"

    began=$SECONDS
    python3 -m venv "$work/fresh"
    "$python" -m pip install -q --disable-pip-version-check --no-index "$wheel"
    proxy=$work/fresh/bin/streamgauge
    [ "$("$proxy" --version)" = "$(target/debug/streamgauge --version)" ] || { say "another version is in the wheel"; return 1; }
    (cd "$work" && "$proxy" init --port "${app_url##*:}" >"$work/told")
    # Ports that the system picks, in place of those that the file names.
    start_proxy "$proxy" "$work/proxy.log" --config "$work/streamgauge.toml"
    "$python" - "$work/told" "$proxy_url" "$admin_url" <<'END' || { cat "$work/told" "$work/proxy.log" >&2; return 1; }
import json, re, sys, time, urllib.request

told, proxy, admin = open(sys.argv[1]).read(), sys.argv[2], sys.argv[3]
# The request that `init` proposed, by its own words.
path, body = re.search(r"curl -N http://[^/]+(/\S+) -H 'content-type: application/json' -d '(.*)'", told).groups()
request = urllib.request.Request(proxy + path, body.encode(), {"content-type": "application/json"})
answer = urllib.request.urlopen(request, timeout=30).read().decode()
assert answer.rstrip().endswith("data: [DONE]"), answer

deadline = time.monotonic() + 10
while not (recent := json.load(urllib.request.urlopen(f"{admin}/api/streams", timeout=5))["recent"]):
    assert time.monotonic() < deadline, "the request is not in the live view"
[last] = recent
assert last["outcome"] == "completed" and last["route"] == "app", last
assert 0 < last["ttft_s"] < 30 and last["phases"]["generation"] > 0, last
assert abs(sum(last["phases"].values()) - last["duration_s"]) < 0.001, last
print(f"first token after {last['ttft_s']:.3f} s of {last['duration_s']:.3f} s", file=sys.stderr)
END
    say "wheel: from pip install to the anatomy of a FastAPI app's answer in $((SECONDS - began)) s"
    [ $((SECONDS - began)) -lt "$seconds_max" ] || { say "more than $seconds_max s"; return 1; }
}

main
