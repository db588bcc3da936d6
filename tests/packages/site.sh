#!/usr/bin/env bash
# The documentation site builds without a broken link, its reference has what the binary knows, and a broken link would be seen.
#   tests/packages/site.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

site=.cache/site
scripts/setup site
"$venv/bin/python" scripts/site "$1" >/dev/null || { "$venv/bin/python" scripts/site "$1"; exit 1; }

has() { # FILE TEXT
    grep -cF -- "$2" "$site/html/$1" >/dev/null || { say "site: $1 has no $2"; exit 1; }
}
has index.html "A reverse proxy for LLM backends"
has reference/configuration/index.html "min_body_rate"
has reference/commands/index.html "streamgauge key new"
has reference/metrics/index.html streamgauge_overhead_seconds
has reference/log/index.html attempts/error_type
[ -s "$site/html/search.json" ] || [ -s "$site/html/search/search_index.json" ] || { say "site: there is no index to search"; exit 1; }

printf '\n[broken](nowhere.md)\n' >>"$site/pages/docs/limits.md"
if "$venv/bin/zensical" build --strict >/dev/null 2>&1; then
    say "site: a broken link passes"
    exit 1
fi
say "site: $(find "$site/html" -name index.html | wc -l) pages, no broken link"
