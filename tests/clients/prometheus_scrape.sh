#!/usr/bin/env bash
# Debian's Prometheus scrapes the admin address, and knows our metrics. Usage: prometheus_scrape.sh ADMIN_URL
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
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:0 \
    --enable-feature=exemplar-storage >"$work/log" 2>&1 &
started_pids+=("$!")
# Its log names the port that the system picked.
prometheus=http://$(wait_for_line Prometheus "$!" "$work/log" 'msg="?Listening on"?.* address="?(127[^ "]*)')
query() { curl -fsS -G "$prometheus/api/v1/query" --data-urlencode "query=$1" 2>&1 || true; }
for _ in $(seq 100); do
    answer=$(query 'sum(gen_ai_server_time_to_first_token_seconds_count)')
    case "$answer" in *'"value":['*'"'[1-9]*) break ;; esac
    sleep 0.2
done
case "$answer" in *'"value":['*'"'[1-9]*) ;; *) echo "no time to first token in Prometheus: $answer"; tail -5 "$work/log"; exit 1 ;; esac
up=$(query 'up{job="streamgauge"}')
case "$up" in *',"1"]'*) ;; *) echo "the scrape fails: $up"; exit 1 ;; esac
echo "Prometheus: scraped, and time to first token is there"
