#!/usr/bin/env bash
# The bench itself: what it makes of measurements, and whether each kind of load still runs, through a Streamgauge. Nothing is judged by time.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

binary=$1

python3 tests/bench/report_test.py
cargo build --quiet -p loadgen
python3 tests/bench/load_test.py "${CARGO_TARGET_DIR:-target}/debug/loadgen" "$binary"
say "the bench: passed"
