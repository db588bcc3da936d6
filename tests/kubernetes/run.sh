#!/usr/bin/env bash
# The chart and the plain manifests: rendered, validated, and run as far as that goes without a cluster.
#   tests/kubernetes/run.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
binary=${1:-target/debug/streamgauge}
scripts/setup kubernetes apt prometheus
find_helm
find_node

scripts/manifests --check
"$venv/bin/python" tests/kubernetes/check.py "$helm" "$kubectl" "$node" "$binary"
