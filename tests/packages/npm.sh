#!/usr/bin/env bash
# What Next.js people do: npm's packages of the binary that was tested, installed from tarballs, without a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT

main() {
    local system pid told
    find_node
    system=linux-$("$node" -p process.arch)
    scripts/npm-packages "$work/packages" "$system=target/debug/streamgauge"
    (cd "$work" && "${npm[@]}" pack --silent ./packages/streamgauge ./packages/streamgauge-* >/dev/null)
    mkdir "$work/app"
    printf '{"private": true}\n' >"$work/app/package.json"
    (cd "$work/app" && "${npm[@]}" install --offline --no-audit --no-fund --silent ../streamgauge-[0-9]*.tgz ../streamgauge-linux-*.tgz)
    told=$(cd "$work/app" && PATH=$(dirname "$node"):$PATH node_modules/.bin/streamgauge --version)
    [ "$told" = "$(target/debug/streamgauge --version)" ] || { say "npm: it says $told"; return 1; }

    # A signal for npm's program ends the proxy, and its exit is the proxy's.
    PATH=$(dirname "$node"):$PATH "$work/app/node_modules/.bin/streamgauge" run --upstream http://127.0.0.1:1 --listen 127.0.0.1:0 \
        --admin 127.0.0.1:0 --log json >"$work/log" 2>&1 &
    pid=$!
    started_pids+=("$pid")
    wait_for_line "the proxy" "$pid" "$work/log" '"admin_url":"([^"]*)","event":"started"' >/dev/null
    kill -TERM "$pid"
    wait "$pid" || { say "npm: ended with $?"; tail -3 "$work/log" >&2; return 1; }
    started_pids=()

    rm -r "$work/app/node_modules/streamgauge-$system"
    if told=$(cd "$work/app" && PATH=$(dirname "$node"):$PATH node_modules/.bin/streamgauge --version 2>&1); then
        say "npm: passes without a binary: $told"
        return 1
    fi
    [[ $told == *"streamgauge-$system is not installed"* ]] || { say "npm: does not say what is missing: $told"; return 1; }
    ! scripts/npm-packages --all "$work/packages" "$system=target/debug/streamgauge" 2>/dev/null || { say "npm: a release without all systems passes"; return 1; }
    say "npm: packed, installed and run as $system"
}

main
