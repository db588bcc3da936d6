#!/usr/bin/env bash
# Debian's Prometheus scrapes the admin address, and knows our metrics and the traces they point to.
# Usage: prometheus_scrape.sh ADMIN_URL PROXY_LOG
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
cat > "$work/prometheus.yml" <<END
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: streamgauge
    static_configs: [{ targets: ["${1#http://}"] }]
END
start_prometheus "$work"
query() { curl -fsS -G "$prometheus/api/v1/query" --data-urlencode "query=$1" 2>&1 || true; }
for _ in $(seq 100); do
    answer=$(query 'sum(gen_ai_server_time_to_first_token_seconds_count)')
    case "$answer" in *'"value":['*'"'[1-9]*) break ;; esac
    sleep 0.2
done
case "$answer" in *'"value":['*'"'[1-9]*) ;; *) echo "no time to first token in Prometheus: $answer"; tail -5 "$work/prometheus.log"; exit 1 ;; esac
up=$(query 'up{job="streamgauge"}')
case "$up" in *',"1"]'*) ;; *) echo "the scrape fails: $up"; exit 1 ;; esac
# Each bucket's exemplar names a request of the log, and its value is that request's.
exemplars=
for _ in $(seq 100); do
    exemplars=$(curl -fsS -G "$prometheus/api/v1/query_exemplars" --data-urlencode "start=$(($(date +%s) - 600))" \
        --data-urlencode "end=$(($(date +%s) + 60))" \
        --data-urlencode 'query=gen_ai_server_time_to_first_token_seconds_bucket')
    case "$exemplars" in *'"trace_id"'*) break ;; esac
    sleep 0.2
done
python3 - "$2" "$exemplars" <<'END'
import json, sys

log, answer = open(sys.argv[1]), json.loads(sys.argv[2])
requests = [json.loads(line) for line in log if line.startswith('{"timestamp"') and '"ttft_s"' in line]
found = [exemplar for series in answer["data"] for exemplar in series["exemplars"]]
assert found, f"Prometheus keeps no exemplar: {answer}"
for exemplar in found:
    named = [one for one in requests if one["trace_id"] == exemplar["labels"]["trace_id"]]
    assert named, f"no request has the trace of {exemplar}"
    # A client may send several requests in one trace.
    assert any(abs(one["ttft_s"] - float(exemplar["value"])) < 1e-5 for one in named), (exemplar, named)
print(f"Prometheus: scraped; {len(found)} exemplars of the time to first token lead to their requests")
END
