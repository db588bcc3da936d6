"""nginx, HAProxy and Caddy: the machine's own, or Debian's packages unpacked beside the build.

Unpacked, not installed: no root, no service that starts now or at boot, nothing to clean up but a directory.
"""

import os
import shutil
import subprocess
from pathlib import Path

from .failure import Failure


def programs(cache: Path, names: tuple[str, ...]) -> dict[str, tuple[str, dict[str, str]]]:
    """Path and environment of each program, fetched into `cache` where the machine has none."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    found = {name: shutil.which(name, path=search) for name in names}
    unpacked = cache / "root"
    missing = [name for name, path in found.items() if path is None and place(unpacked, name) is None]
    if missing:
        fetch(missing, cache, unpacked)
    libraries = ":".join(str(path) for path in (*unpacked.glob("usr/lib/*-linux-gnu"), *unpacked.glob("lib/*-linux-gnu")))
    unpacked_env = {**os.environ, "LD_LIBRARY_PATH": libraries}
    return {
        name: (path, dict(os.environ)) if path else (str(place(unpacked, name)), unpacked_env)
        for name, path in found.items()
    }


def place(unpacked: Path, name: str) -> Path | None:
    """Where an unpacked program is."""
    return next((path for part in ("usr/sbin", "usr/bin") if (path := unpacked / part / name).exists()), None)


def fetch(names: list[str], cache: Path, unpacked: Path) -> None:
    """Downloads what an installation would need, and unpacks it."""
    print(f"bench: fetching {' and '.join(names)} from Debian into {os.path.relpath(cache)} (unpacked, not installed)")
    plan = command(["apt-get", "--simulate", "install", "--no-install-recommends", *names])
    # "Inst name [installed version] (new version …)"
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    if not set(names) <= set(packages):
        raise Failure(f"apt-get would not install {names}: is `apt-get update` needed?")
    archives = cache / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    archives.mkdir(parents=True)
    archives.chmod(0o777)  # apt drops root for downloads
    command(["apt-get", "download", *packages], cwd=archives)
    unpacked.mkdir(exist_ok=True)
    for archive in sorted(archives.glob("*.deb")):
        command(["dpkg-deb", "--extract", str(archive), str(unpacked)])
    shutil.rmtree(archives)


def command(words: list[str], cwd: Path | None = None) -> str:
    """Runs a command that must succeed, and returns its output."""
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    except (FileNotFoundError, subprocess.TimeoutExpired) as problem:
        raise Failure(f"{words[0]}: {problem}. Install nginx, haproxy and caddy yourself, then run this again.") from problem
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)} failed:\n{done.stderr.strip()}\n(`apt-get update` may help.)")
    return done.stdout
