#!/usr/bin/env bash
# curl -N sees each event before the next one is made. Usage: curl_stream.sh PROXY_URL
set -euo pipefail
# The app makes a token every 0.3 s: when the first line is here, the stream must still be running.
exec 3< <(curl -sSN --max-time 20 "$1/api/v1/chat" -H 'content-type: application/json' -d '{"message":"hi","think":0,"pace":0.3}')
curl_pid=$!
read -r -t 10 first <&3
kill -0 "$curl_pid" || { echo "the whole stream came at once"; exit 1; }
case "$first" in 'data: {"token": "A"}') ;; *) echo "unexpected first line: $first"; exit 1 ;; esac
last=
while read -r -t 10 line <&3; do [ -z "$line" ] || last=$line; done
[ "$last" = "data: [DONE]" ] || { echo "unexpected last line: $last"; exit 1; }
echo "curl -N: the first event came while the stream was running"
