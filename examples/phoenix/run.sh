#!/usr/bin/env bash
# Arize Phoenix shows what Streamgauge exports: starts Phoenix, a fake backend and the proxy on loopback, streams a few answers
# and asks Phoenix what it got. With KEEP=1 everything stays up, to be looked at in a browser.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

version=20.26.1
venv=.cache/phoenix
[ -x "$venv/bin/phoenix" ] || {
    say "installing arize-phoenix $version into $venv (a large package)"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "arize-phoenix==$version"
}
cargo build --quiet

work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
phoenix_port=$(free_port) grpc_port=$(free_port) backend_port=$(free_port)
say "starting Phoenix at http://127.0.0.1:$phoenix_port"
PHOENIX_WORKING_DIR="$work" PHOENIX_HOST=127.0.0.1 PHOENIX_PORT=$phoenix_port PHOENIX_GRPC_PORT=$grpc_port PHOENIX_TELEMETRY_ENABLED=false \
    "$venv/bin/phoenix" serve >"$work/phoenix.log" 2>&1 &
started_pids+=("$!")
wait_for "http://127.0.0.1:$phoenix_port/healthz" "$!" Phoenix "$work/phoenix.log"

target/debug/streamgauge demo --listen "127.0.0.1:$backend_port" >"$work/backend.log" 2>&1 &
started_pids+=("$!")
wait_for "http://127.0.0.1:$backend_port/health" "$!" "the fake backend" "$work/backend.log"
cat > "$work/streamgauge.toml" <<END
[telemetry]
otlp_endpoint = "http://127.0.0.1:$phoenix_port"
sample_ratio = 1.0

[[upstream]]
name = "demo"
url = "http://127.0.0.1:$backend_port"

[[price]]
model = "demo-*"
input = 2.5
output = 10.0
END
OTEL_BSP_SCHEDULE_DELAY=200 start_proxy target/debug/streamgauge "$work/proxy.log" --config "$work/streamgauge.toml"

say "streaming three answers"
for tokens in 5 10 20; do
    curl -sSN -o /dev/null "$proxy_url/v1/chat/completions?tokens=$tokens" -H 'content-type: application/json' \
        -d '{"model":"demo-model","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}'
done

query='{"query":"{ projects { edges { node { name traceCount tokenCountTotal spans(first: 20) { edges { node { name spanKind tokenCountTotal attributes } } } } } } }"}'
for _ in $(seq 100); do
    answer=$(curl -fsS "http://127.0.0.1:$phoenix_port/graphql" -H 'content-type: application/json' -d "$query" || true)
    case "$answer" in *'"traceCount":3'*'chat demo-model'*) break ;; esac
    sleep 0.2
done
case "$answer" in
    *'"traceCount":3'*'chat demo-model'*)
        say "Phoenix has the three traces; of each answer:"
        python3 - "$answer" <<'END'
import json, sys

answer = json.loads(sys.argv[1])
nodes = [span["node"] for project in answer["data"]["projects"]["edges"] for span in project["node"]["spans"]["edges"]]
chats = [node for node in nodes if node["name"] == "chat demo-model"]


def find(attributes, *path):
    for key in path:
        attributes = attributes.get(key) if isinstance(attributes, dict) else None
    return attributes


for chat in chats:
    told = json.loads(chat["attributes"])
    first = find(told, "streamgauge", "time_to_first_token")
    model = find(told, "gen_ai", "request", "model") or find(told, "llm", "model_name")
    cost = find(told, "llm", "cost", "total") or find(told, "gen_ai", "usage", "cost")
    print(f"{chat['tokenCountTotal']} tokens  {model}  first token after {first} s  {cost} US dollars")
    assert chat["tokenCountTotal"] and model == "demo-model" and first > 0 and cost > 0, (chat, told)
assert len(chats) == 3, nodes
END
        ;;
    *) say "Phoenix does not have them: $answer"; tail -5 "$work/phoenix.log" >&2; exit 1 ;;
esac
[ -z "${KEEP:-}" ] || { say "look at http://127.0.0.1:$phoenix_port; Ctrl-C ends it"; wait; }
