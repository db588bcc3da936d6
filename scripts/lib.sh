# Shared by the scripts: saying what happens, free ports, waiting for addresses, and ending what was started.
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

started_pids=()
end_started() {
    local pid
    for pid in "${started_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits until URL answers; ends with an error when the process that should serve it is gone.
wait_for() { # URL PID WHAT LOG
    local _
    for _ in $(seq 200); do
        curl -fsS -o /dev/null --max-time 2 "$1" 2>/dev/null && return
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    say "$3 did not start; its log:"
    tail -20 "$4" >&2
    return 1
}

start_fastapi() { # PORT LOG
    (cd examples/fastapi && exec ../../.cache/venv/bin/uvicorn app:app --host 127.0.0.1 --port "$1" --log-level warning) >"$2" 2>&1 &
    started_pids+=("$!")
    wait_for "http://127.0.0.1:$1/health" "$!" "the FastAPI example" "$2"
}

start_proxy() { # BINARY LOG ARGUMENTS... ; sets proxy_url and admin_url
    local binary=$1 log=$2 line
    shift 2
    "$binary" run --listen 127.0.0.1:0 --admin 127.0.0.1:0 --log json "$@" >"$log" 2>&1 &
    started_pids+=("$!")
    local pid=$! _
    for _ in $(seq 200); do
        line=$(grep -m1 '"event":"started"' "$log" || true)
        [ -n "$line" ] && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$line" ] || { say "the proxy did not start; its log:"; tail -20 "$log" >&2; return 1; }
    proxy_url="http://$(sed -E 's/.*"listen":"([^"]*)".*/\1/' <<<"$line")"
    admin_url="http://$(sed -E 's/.*"admin":"([^"]*)".*/\1/' <<<"$line")"
}
