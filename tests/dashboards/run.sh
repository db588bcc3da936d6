#!/usr/bin/env bash
# Dashboards, rules and the composition: looked over, tested, and asked of a Prometheus that scraped a real run.
#   tests/dashboards/run.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
binary=${1:-target/debug/streamgauge}
scripts/setup dashboards apt curl haproxy prometheus redis-server
python=$venv/bin/python

dashboards/source.py --check
dashboards/slo.py --check
"$python" tests/dashboards/lint.py
"$python" tests/dashboards/schema.py
promtool check rules --lint-fatal dashboards/prometheus/slo.yml dashboards/prometheus/alerts.yml >/dev/null
promtool test rules dashboards/prometheus/tests/*.yml >/dev/null
promtool check config dashboards/prometheus/prometheus.yml >/dev/null
echo "promtool: rules are in order, fire and do not fire as they should"

"$python" tests/dashboards/compose.py
"$binary" check --config examples/compose/streamgauge/streamgauge.toml
haproxy -c -q -f examples/compose/haproxy.cfg
# As they lie beside each other in the container.
layout=$(mktemp -d)
trap 'rm -rf "$layout"' EXIT
cp examples/compose/prometheus.yml dashboards/prometheus/slo.yml dashboards/prometheus/alerts.yml "$layout/"
promtool check config "$layout/prometheus.yml" >/dev/null

tests/dashboards/live.sh "$binary"
