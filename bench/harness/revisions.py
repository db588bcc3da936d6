"""Builds what is measured: this working tree, and an older commit in a worktree of its own."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .failure import Failure

MEMBERS = 'members = ["bench/loadgen"'


@dataclass(frozen=True)
class Built:
    """The two programs of a version."""

    proxy: Path
    feed: Path


def now(root: Path, kept: Path) -> Built:
    """This working tree's."""
    return build(root, kept / "now")


def older(root: Path, kept: Path, revision: str) -> tuple[Built, Path]:
    """A commit's, and where it is checked out. What feeds its gauge is today's program."""
    commit = output(["git", "-C", str(root), "rev-parse", "--verify", f"{revision}^{{commit}}"])
    tree = kept / commit[:12]
    if not tree.exists():
        output(["git", "-C", str(root), "worktree", "prune"])
        output(["git", "-C", str(root), "worktree", "add", "--detach", str(tree), commit])
    shutil.copytree(root / "bench/feed", tree / "bench/feed", dirs_exist_ok=True)
    manifest = tree / "Cargo.toml"
    text = manifest.read_text()
    if "bench/feed" not in text:
        manifest.write_text(text.replace(MEMBERS, f'{MEMBERS}, "bench/feed"'))
    return build(tree, kept / f"{commit[:12]}-built"), tree


def build(tree: Path, into: Path) -> Built:
    """Builds a tree and copies its programs: the next tree's take their names in the target directory, which all share."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", tree / "target"))
    into.mkdir(parents=True, exist_ok=True)
    made = []
    # The feed by itself: with the proxy the gauge's crates would have the proxy's features too.
    for package, extra in (("streamgauge", ["--bin", "streamgauge"]), ("feed", [])):
        print(f"instructions: cargo build --release -p {package}, in {tree}", flush=True)
        words = ["cargo", "build", "--release", "--quiet", "-p", package, *extra]
        if subprocess.run(words, cwd=tree, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=False).returncode != 0:
            raise Failure(f"{tree} does not build")
        made.append(into / package)
        shutil.copy2(target / "release" / package, made[-1])
    return Built(*made)


def output(words: list[str]) -> str:
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
