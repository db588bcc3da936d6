#!/usr/bin/env bash
# Debian's nginx between the proxy and the app, set as many are: its buffering is recognised and named. The app asked
# directly is not accused. Usage: nginx_buffering.sh BINARY
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
# By default nginx asks in HTTP/1.0, and collects what has neither a length nor chunks: so answers uvicorn with h11, its
# only parser where httptools is not installed.
start_fastapi "$work/app.log" --http h11
nginx=$(command -v nginx || echo /usr/sbin/nginx)
# nginx cannot listen on a port that it picks itself; a socket file needs none.
cat > "$work/nginx.conf" <<END
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    gzip on;
    gzip_proxied any;
    gzip_types text/event-stream;
    server {
        listen unix:$work/nginx.sock;
        location / { proxy_pass $app_url; proxy_buffering on; }
    }
}
END
"$nginx" -e "$work/nginx.log" -c "$work/nginx.conf" 2>"$work/stderr" &
started_pids+=("$!")
cat > "$work/streamgauge.toml" <<END
[[upstream]]
name = "direct"
url = "$app_url"

[[upstream]]
name = "behind-nginx"
url = "unix:$work/nginx.sock"

[[route]]
name = "direct"
headers = { x-way = "direct" }
targets = [{ upstream = "direct" }]

[[route]]
name = "nginx"
targets = [{ upstream = "behind-nginx" }]
END
start_proxy "$1" "$work/proxy.log" --config "$work/streamgauge.toml"
ask() {
    curl -sSN -o /dev/null --max-time 20 "$proxy_url/api/v1/chat" -H 'content-type: application/json' -H "x-way: $1" \
        -d '{"message":"hi","pace":0.05}'
}
for _ in 1 2 3; do
    for way in direct nginx; do
        ask "$way" &
        asking+=("$!")
    done
    wait "${asking[@]}"
    asking=()
done
metrics=$(curl -fsS "$admin_url/metrics")
want='streamgauge_buffered_streams_total{upstream="behind-nginx"} 3'
grep -qxF "$want" <<<"$metrics" || {
    echo "nginx held three streams back, and the proxy says:"
    grep streamgauge_buffered_streams_total <<<"$metrics" || echo nothing
    grep '"event":"llm.request"' "$work/proxy.log" | tail -6
    cat "$work/nginx.log" "$work/stderr"
    exit 1
}
grep -qxF 'streamgauge_buffered_streams_total{upstream="direct"} 0' <<<"$metrics" || {
    echo "the app itself is accused:"
    grep streamgauge_buffered_streams_total <<<"$metrics"
    exit 1
}
hints=$(curl -fsS "$admin_url/api/streams")
grep -q '"upstream":"behind-nginx","kind":"buffered_streams","streams":3' <<<"$hints" || { echo "no hint: ${hints:0:2000}"; exit 1; }
grep -q '"event":"upstream.buffered".*proxy_buffering\|proxy_buffering.*"event":"upstream.buffered"' "$work/proxy.log" || {
    echo "no warning in the log"
    exit 1
}
echo "nginx with proxy_buffering: recognised in all three streams, the app itself in none"
