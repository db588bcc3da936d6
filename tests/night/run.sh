#!/usr/bin/env bash
# Three troubles in a night of healthy traffic, and what somebody finds out of them who knows only docs/incident-response.md.
#   tests/night/run.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/setup apt curl jq
exec python3 tests/night/night.py "${1:-target/debug/streamgauge}"
