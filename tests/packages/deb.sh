#!/usr/bin/env bash
# The Debian package of the binary that was tested: what it says of itself, its files, and that they work where they lie. It is not installed:
# that would change this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
libc=$(dpkg-query -W -f '${Version}' libc6)

fail() { say "deb: $*"; exit 1; }

package=$(scripts/deb target/debug/streamgauge "$(dpkg --print-architecture)" "${libc%%-*}" "$work")
field() { dpkg-deb --field "$package" "$1"; }
[ "$(field Package)" = streamgauge ] || fail "its name is $(field Package)"
[[ "streamgauge $(field Version)" = "$(target/debug/streamgauge --version)"* ]] || fail "its version is $(field Version)"
[ "$(field Architecture)" = "$(dpkg --print-architecture)" ] || fail "it is for $(field Architecture)"

# A library that no dependency brings would be missing on another machine.
for library in $(objdump -p target/debug/streamgauge | sed -n 's/^ *NEEDED *//p'); do
    case $library in
        libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | ld-linux-*) needed="libc6 (>= " ;;
        libgcc_s.so.1) needed=libgcc-s1 ;;
        *) fail "no dependency has $library" ;;
    esac
    [[ "$(field Depends)" == *"$needed"* ]] || fail "$library needs $needed, and it depends on $(field Depends)"
done

listed=$(dpkg-deb --contents "$package")
for line in '-rwxr-xr-x root/root .* ./usr/bin/streamgauge$' '-rw-r--r-- root/root .* ./lib/systemd/system/streamgauge.service$' \
    '-rw-r--r-- root/root .* ./etc/streamgauge/streamgauge.toml$' '-rw-r--r-- root/root .* ./usr/share/doc/streamgauge/copyright$'; do
    grep -cE -- "$line" <<<"$listed" >/dev/null || fail "no file like $line among: $listed"
done

dpkg-deb --raw-extract "$package" "$work/root"
[ "$(cat "$work/root/DEBIAN/conffiles")" = /etc/streamgauge/streamgauge.toml ] || fail "an upgrade would overwrite the configuration"
"$work/root/usr/bin/streamgauge" check "$work/root/etc/streamgauge/streamgauge.toml" >/dev/null
started=$(sed -n 's/^ExecStart=\([^ ]*\) .*--config \([^ ]*\) .*/\1 \2/p' "$work/root/lib/systemd/system/streamgauge.service")
for path in $started; do [ -e "$work/root$path" ] || fail "the unit names $path, which is not in the package"; done
[ -n "$started" ] || fail "the unit has no ExecStart"
for script in postinst prerm postrm; do
    [ -x "$work/root/DEBIAN/$script" ] || fail "there is no $script"
    sh -n "$work/root/DEBIAN/$script"
done
! command -v shellcheck >/dev/null || shellcheck packaging/deb/p*
say "deb: $(basename "$package"), $(($(stat -c %s "$package") / 1000000)) MB"
