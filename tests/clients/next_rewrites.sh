#!/usr/bin/env bash
# A browser's request goes through a real `next start` with rewrites() to the proxy: each event comes as it is made, though
# Next.js compresses. Usage: next_rewrites.sh PROXY_URL APP_URL BUILT_APP NODE
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"
here=$(cd "$(dirname "$0")" && pwd) built=$(cd "$3" && pwd)
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
# The build is the same for all runs; only the addresses in it are not.
cp -r "$built/.next" "$built/package.json" "$built/next.config.mjs" "$work/"
ln -s "$built/node_modules" "$work/node_modules"
sed -i "s#http://gauged\.invalid#$1#g; s#http://bare\.invalid#$2#g" "$work"/.next/*.json "$work"/.next/*.js
cd "$work"
NEXT_TELEMETRY_DISABLED=1 "$4" node_modules/next/dist/bin/next start -H 127.0.0.1 -p 0 >"$work/log" 2>&1 &
started_pids+=("$!")
next=$(wait_for_line "next start" "$!" "$work/log" 'Local: *(http:[^ ]*)')
wait_for_line "next start" "$!" "$work/log" '(Ready)' >/dev/null
"$4" "$here/node/next_rewrites.mjs" "$next"
