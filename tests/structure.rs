//! The rules of the house that a compiler does not know: rooms import one way, files stay short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up: a room may import from those before it.
const ROOMS: [&str; 8] = ["llm", "config", "policy", "telemetry", "proxy", "admin", "server", "cli"];

/// Rooms that know no other.
const ALONE: [&str; 1] = ["demo"];

const LINES_MAX: usize = 400;

fn sources(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The room of a file, or of a path such as `crate::llm::Dialect`.
fn room_of(first: &str) -> Option<&'static str> {
    ROOMS.iter().chain(&ALONE).find(|room| **room == first).copied()
}

fn imports(text: &str) -> Vec<&'static str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| room_of(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")))
        .collect()
}

#[test]
fn rooms_import_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut edges = 0;
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        // Tests may look across.
        if path.file_stem().is_some_and(|stem| stem.to_str().unwrap().ends_with("tests")) {
            continue;
        }
        let first = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(here) = room_of(first) else { continue };
        let height = |room: &str| ROOMS.iter().position(|other| *other == room);
        for other in imports(&fs::read_to_string(&path).unwrap()) {
            edges += 1;
            let allowed = other == here
                || match (height(here), height(other)) {
                    (Some(from), Some(to)) => to < from,
                    // The command line may start what stands alone.
                    (Some(_), None) => here == "cli",
                    (None, _) => false,
                };
            assert!(allowed, "{} imports from `{other}`, which is not below `{here}`", inside.display());
        }
    }
    assert!(edges > 50, "the check must see imports; it saw {edges}");
}

#[test]
fn files_stay_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = ["src", "tests", "benches", "bench", "fuzz/src", "fuzz/fuzz_targets", "fuzz/examples"]
        .iter()
        .flat_map(|part| sources(&root.join(part)))
        .collect();
    assert!(files.len() > 50);
    for path in files {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it", path.display());
    }
}
