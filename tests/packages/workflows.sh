#!/usr/bin/env bash
# The workflows are sound, and the scripts that their jobs call do what they say, as far as that can be seen without GitHub: not
# the uploads, the images of manylinux, other architectures and macOS.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT

main() {
    schemas
    "$venv/bin/zizmor" --offline --no-progress --quiet .github
    notes
    checksums
    links
    say "the workflows are sound; notes, archives, the formula, checksums and links work"
}

schemas() {
    local check=("$venv/bin/check-jsonschema" --quiet --builtin-schema)
    "${check[@]}" vendor.github-workflows .github/workflows/*.yml
    "${check[@]}" custom.github-workflows-require-timeout .github/workflows/*.yml
    "${check[@]}" vendor.dependabot .github/dependabot.yml
    "${check[@]}" vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
    "${check[@]}" vendor.github-issue-forms .github/ISSUE_TEMPLATE/{bug,stream,idea}.yml
    sed 's/runs-on:/runs-at:/' .github/workflows/ci.yml >"$work/wrong.yml"
    fails "a workflow with a misspelt key passes" "${check[@]}" vendor.github-workflows "$work/wrong.yml"
}

# A tree of its own, where a version was released.
notes() {
    local tree=$work/tree told
    mkdir "$tree"
    cp -r scripts Cargo.toml README.md LICENSE config "$tree"
    printf '# Changelog\n\n## Unreleased\n\n- soon\n\n## 7.8.9 - today\n\n### Added\n\n- this\n\n## 7.8.8 - before\n\n- that\n' >"$tree/CHANGELOG.md"
    sed -i 's/^version = ".*"/version = "7.8.9"/' "$tree/Cargo.toml"
    told=$("$tree/scripts/release" notes v7.8.9)
    [[ $told == *"- this"* && $told != *that* && $told != *soon* ]] || { say "these are not the notes of 7.8.9: $told"; return 1; }
    fails "a tag that is not the version passes" "$tree/scripts/release" notes v7.8.8
    sed -i 's/## 7.8.9/## 7.8.7/' "$tree/CHANGELOG.md"
    fails "a version without a section passes" "$tree/scripts/release" notes v7.8.9
}

checksums() {
    local tree=$work/tree
    mkdir -p "$tree/dist"
    printf 'a' >"$tree/dist/a.whl"
    printf 'b' >"$tree/dist/b.tar.gz"
    "$tree/scripts/release" checksums
    [ "$(cut -d' ' -f3 "$tree/dist/SHA256SUMS" | paste -sd' ')" = "a.whl b.tar.gz" ] || { cat "$tree/dist/SHA256SUMS"; return 1; }
    printf 'c' >>"$tree/dist/a.whl"
    npm_of_archives "$tree"
    fails "a file that changed passes" bash -c 'cd "$0" && sha256sum --check --status SHA256SUMS' "$tree/dist"
}

# Of archives as the release has them, with a text in place of each binary: which goes into which package.
npm_of_archives() { # TREE
    local tree=$1 target os cpu
    mkdir -p "$tree/packaging"
    cp -r packaging/npm packaging/homebrew "$tree/packaging"
    for cpu in x86_64 aarch64; do
        for os in unknown-linux-gnu unknown-linux-musl apple-darwin; do
            target=streamgauge-$cpu-$os
            mkdir "$work/$target"
            printf '%s' "$target" >"$work/$target/streamgauge"
            tar -C "$work" -czf "$tree/dist/$target.tar.gz" "$target"
        done
    done
    "$tree/scripts/release" npm
    [ "$(cat "$tree/target/npm/streamgauge-linux-arm64-musl/streamgauge")" = streamgauge-aarch64-unknown-linux-musl ]
    [ "$(cat "$tree/target/npm/streamgauge-darwin-x64/streamgauge")" = streamgauge-x86_64-apple-darwin ]
    [ "$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["optionalDependencies"]))' "$tree/target/npm/streamgauge/package.json")" = 6 ]
    formula_and_binstall "$tree"
    rm "$tree/dist/streamgauge-x86_64-apple-darwin.tar.gz"
    fails "a release without a system passes" "$tree/scripts/release" npm
}

# What Homebrew and cargo-binstall are told to fetch is what the release has, and the binary is where they look for it.
formula_and_binstall() { # TREE
    local tree=$1 formula=$1/dist/streamgauge.rb target sum told
    (cd "$tree" && GITHUB_REPOSITORY=somebody/streamgauge scripts/release formula v7.8.9)
    if grep '@' "$formula"; then say "something is not filled in"; return 1; fi
    for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl x86_64-apple-darwin aarch64-apple-darwin; do
        sum=$(sha256sum "$tree/dist/streamgauge-$target.tar.gz")
        told=$(grep -A1 "url \"https://github.com/somebody/streamgauge/releases/download/v7.8.9/streamgauge-$target.tar.gz\"" "$formula")
        [[ $told == *"sha256 \"${sum%% *}\""* ]] || { say "the formula has another checksum of $target: $told"; return 1; }
    done
    ! command -v ruby >/dev/null || ruby -c "$formula" >/dev/null
    fails "a formula of another version" "$tree/scripts/release" formula v7.8.8
    python3 - "$tree/Cargo.toml" "$tree/dist" <<'END'
import pathlib, sys, tarfile, tomllib

binstall = tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["package"]["metadata"]["binstall"]
target = "aarch64-unknown-linux-musl"

def filled(template):
    for name, value in {"repo": "R", "version": "7.8.9", "target": target, "bin": "streamgauge", "binary-ext": ""}.items():
        template = template.replace("{ %s }" % name, value)
    assert "{" not in template, template
    return template

url = filled(binstall["pkg-url"])
start, _, archive = url.rpartition("/")
assert start == "R/releases/download/v7.8.9", url
assert binstall["pkg-fmt"] == "tgz"
assert filled(binstall["bin-dir"]) in tarfile.open(pathlib.Path(sys.argv[2], archive)).getnames()
END
}

links() {
    local site
    mkdir "$work/site"
    printf 'there' >"$work/site/there"
    python3 -u -m http.server --bind 127.0.0.1 --directory "$work/site" 0 >"$work/site.log" 2>&1 &
    started_pids+=("$!")
    site=$(wait_for_line "a site" "$!" "$work/site.log" '\((http:[^)]*)\/\)')
    printf '[a](%s/there) [b](https://x.example.com/never)\n' "$site" >"$work/whole.md"
    scripts/links "$work/whole.md"
    printf '[a](%s/there) [b](%s/gone)\n' "$site" "$site" >"$work/broken.md"
    fails "a broken link passes" scripts/links "$work/broken.md"
    fails "a page without a link passes" scripts/links LICENSE
}

fails() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        say "$what"
        return 1
    fi
}

main
