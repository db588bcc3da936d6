#!/usr/bin/env bash
# The code blocks of the tutorial and of the README, run as a reader would: in order, on the ports that they name, in a network of their own.
#   tests/docs/run.sh BINARY
set -euo pipefail
if [ -z "${DOCS_INSIDE:-}" ] && unshare -rn ip link set lo up 2>/dev/null; then
    DOCS_INSIDE=1 exec unshare -rn bash -c 'ip link set lo up && exec "$@"' - "$0" "$@"
fi
cd "$(dirname "$0")/../.."
. scripts/lib.sh
find_node
for page in docs/tutorial.md README.md; do
    "$venv/bin/python" tests/docs/run.py "$1" "$page" "$node"
done

# What serves is found without a word of where, and by whom nothing was said: `script` gives it a terminal.
if [ -n "${DOCS_INSIDE:-}" ]; then
    work=$(mktemp -d)
    trap 'end_started; rm -rf "$work"' EXIT
    binary=$(realpath "$1")
    looked() { (cd "$work" && script -qec "$binary $1" /dev/null </dev/null 2>&1 || true); }
    told=$(looked run)
    [[ $told == *"Nothing listens on this machine's loopback."*"streamgauge demo"* ]] || { say "docs: run says: $told"; exit 1; }
    "$binary" demo --listen 127.0.0.1:8000 >"$work/demo.log" 2>&1 &
    started_pids+=("$!")
    wait_for http://127.0.0.1:8000/health "$!" "the fake backend" "$work/demo.log"
    told=$(looked run)
    [[ $told == *"port 8000."*"a server with OpenAI's API: demo"*"streamgauge run --upstream http://127.0.0.1:8000"* ]] || { say "docs: run says: $told"; exit 1; }
    (cd "$work" && "$binary" init --yes >init.log && "$binary" check >/dev/null)
    grep -c 'url = "http://127.0.0.1:8000"' "$work/streamgauge.toml" >/dev/null || { say "docs: init --yes wrote:"; cat "$work/streamgauge.toml" >&2; exit 1; }
    rm "$work/streamgauge.toml"
    (cd "$work" && printf '1\n' | script -qec "$binary init" /dev/null >init.log)
    [ -s "$work/streamgauge.toml" ] || { say "docs: init wrote nothing:"; cat "$work/init.log" >&2; exit 1; }
    end_started
    started_pids=()
fi

# A block that fails, one that says something else, and one without a comment are seen.
pages=$(mktemp -d)
printf '<!-- block: run -->\n\n```sh\nfalse\n```\n' >"$pages/fails.md"
printf '<!-- block: run -->\n\n```sh\necho a\n```\n\n<!-- block: output -->\n\n```text\nb\n```\n' >"$pages/other.md"
printf '```sh\ntrue\n```\n' >"$pages/silent.md"
printf 'text\n' >"$pages/empty.md"
for page in fails other silent empty; do
    if "$venv/bin/python" tests/docs/run.py "$1" "$pages/$page.md" "$node" >/dev/null 2>&1; then say "docs: $page.md passes"; exit 1; fi
done
rm -r "$pages"
