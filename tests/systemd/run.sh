#!/usr/bin/env bash
# systemd: what it is told, the sockets that it passes, and the units: whether it knows all that is in them, and how much of the
# machine the service could reach.
#   tests/systemd/run.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
binary=$(realpath "${1:-target/debug/streamgauge}")
scripts/setup apt python3 systemd
python3 tests/systemd/notify.py "$binary"

# 0 is out of reach of everything, 100 is a service without restrictions. What is left is the network, which it is there for.
exposure_max=20

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The program need not be installed here. Of other units of the machine nothing is asked.
sed "s#/usr/local/bin/streamgauge#$binary#" deploy/systemd/streamgauge.service >"$work/streamgauge.service"
cp deploy/systemd/streamgauge.socket "$work/"
said=$(systemd-analyze verify --man=no "$work/streamgauge.service" "$work/streamgauge.socket" 2>&1) || { echo "$said"; exit 1; }
# What it does not know is a warning to it.
[[ $said != *"$work"* && $said != *streamgauge* ]] || { echo "$said"; exit 1; }
systemd-analyze security --offline=true --threshold="$exposure_max" --no-pager "$work/streamgauge.service" >"$work/security" ||
    { cat "$work/security"; exit 1; }
echo "systemd $(systemd-analyze --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p') knows the units; $(sed -n 's/^→ //p' "$work/security")"
