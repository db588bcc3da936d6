#!/usr/bin/env bash
# The live view in Chromium before a real proxy, and its login form off loopback. Usage: live_view.sh BINARY NODE
set -euo pipefail
# An address of this machine that is not loopback, which nobody else can reach: in a network of our own, where the system allows.
if [ -z "${LIVE_VIEW_INSIDE:-}" ] && unshare -rn ip link set lo up 2>/dev/null; then
    LIVE_VIEW_INSIDE=1 exec unshare -rn bash -c 'ip link set lo up && ip addr add 198.51.100.7/32 dev lo && exec "$@"' - "$0" "$@"
fi
. "$(dirname "$0")/../../scripts/lib.sh"
. "$(dirname "$0")/live_scene.sh"
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
ulimit -n 8192
find_chromium
token=token-$RANDOM$RANDOM$RANDOM
start_scene "$1" "$work"
live_proxy=$proxy_url live_admin=$admin_url live_pid=$scene_pid
outside=0.0.0.0
[ -z "${LIVE_VIEW_INSIDE:-}" ] || outside=198.51.100.7
STREAMGAUGE_ADMIN_TOKEN=$token "$1" run --listen 127.0.0.1:0 --admin "$outside:0" --log json --upstream "$backend_url" >"$work/guarded.log" 2>&1 &
started_pids+=("$!")
guarded=$(wait_for_line "the guarded proxy" "$!" "$work/guarded.log" '"admin_url":"([^"]*)","event":"started"')
"$2" "$(dirname "$0")/node/live_view.mjs" "$live_proxy" "$live_admin" "${guarded/0.0.0.0/127.0.0.1}" "$token" "$live_pid"
