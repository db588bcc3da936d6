//! The rules of the house that a compiler does not know: rooms import one way, files never in a circle, a long file says
//! why, scripts do not leave their pipes early.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "structure/glossary.rs"]
mod glossary;
#[path = "structure/house.rs"]
mod house;
#[path = "structure/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use imports::Imports;

/// From the bottom up: a room may import from those before it.
const ROOMS: [&str; 8] = ["llm", "config", "policy", "telemetry", "proxy", "admin", "server", "cli"];

/// The proxy's own, from the bottom up in the same way. A file that lies in none of them is the ground of all.
const ROOMS_OF_THE_PROXY: [&str; 8] =
    ["endpoints", "limits", "process", "request", "client", "upstream", "exchange", "listener"];

/// Rooms that know no other.
const ALONE: [&str; 1] = ["demo"];

/// From here on a file's head has to say why it is one concept all the same.
const LINES_MAX: usize = 600;

const LONG_BECAUSE: &str = "Long because";

/// Pages that do not lie in `docs/`. The changelog is none of them: it tells of what was.
const PAGES_ABOVE: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "examples/README.md"];

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
fn rooms_of_the_proxy_import_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = root.join("proxy");
    let imports = Imports::of(&root, &sources(&root));
    let height = |file: &Path| {
        let room = file.strip_prefix(&inside).ok()?.iter().next()?;
        ROOMS_OF_THE_PROXY.iter().position(|other| room == *other)
    };
    let mut edges = 0;
    for (from, taken) in &imports.arrows {
        let is_of_the_proxy = from.starts_with(&inside) && *from != inside.join("mod.rs");
        for (to, what) in taken.iter().filter(|_| is_of_the_proxy) {
            edges += 1;
            let (here, there) = (height(from), height(to));
            let shown = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
            assert!(there.is_none() || there <= here, "{} takes {what:?} from {}, above it", shown(from), shown(to));
        }
    }
    assert!(edges > 200, "the check must see imports; it saw {edges}");
    let listed: Vec<String> = fs::read_dir(&inside)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !ROOMS_OF_THE_PROXY.contains(&name.as_str()))
        .collect();
    assert!(listed.is_empty(), "{listed:?} have no place in the order of rooms");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let imports = Imports::of(&root, &sources(&root));
    let arrows: usize = imports.arrows.values().map(|to| to.len()).sum();
    assert!(arrows > 1_000, "the check must see imports; it saw {arrows}");
    let mut told = String::new();
    for circle in imports.circles() {
        told += &format!("{} files import each other in a circle:\n", circle.len());
        for from in &circle {
            for (to, what) in imports.arrows[*from].iter().filter(|(to, _)| circle.contains(to)) {
                let shown = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
                told += &format!("  {} takes from {}: {what:?}\n", shown(from), shown(to));
            }
        }
    }
    assert!(told.is_empty(), "{told}Move what is shared into a file below both.");
}

#[test]
fn a_long_file_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = ["src", "tests", "benches", "bench", "fuzz/src", "fuzz/fuzz_targets", "fuzz/examples"]
        .iter()
        .flat_map(|part| sources(&root.join(part)))
        .collect();
    assert!(files.len() > 50);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        let reason = text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(LONG_BECAUSE));
        assert!(
            lines <= LINES_MAX || reason,
            "{} has {lines} lines: a file holds one concept; where this one does, its head says `{LONG_BECAUSE} …`",
            path.display()
        );
    }
}

/// Under `pipefail` a writer whose reader leaves early fails with SIGPIPE, and so does the script, now and then.
#[test]
fn scripts_read_their_pipes_to_the_end() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scripts = 0;
    for path in ["scripts", "tests", "bench", "examples", "dashboards"].iter().flat_map(|part| texts(&root.join(part)))
    {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if !text.starts_with("#!/usr/bin/env bash") && path.file_name().is_none_or(|name| name != "lib.sh") {
            continue;
        }
        scripts += 1;
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let early = code.split('|').skip(1).any(|reader| {
                let mut words = reader.split_whitespace();
                match words.next() {
                    Some("head") => true,
                    Some("grep") => words
                        .next()
                        .is_some_and(|flags| flags.starts_with('-') && !flags.starts_with("--") && flags.contains('q')),
                    _ => false,
                }
            });
            assert!(
                code.starts_with('#') || !early,
                "{}:{}: the reader of this pipe leaves early: {code}",
                path.display(),
                number + 1
            );
        }
    }
    assert!(scripts > 10, "the check must see scripts; it saw {scripts}");
}

/// What docs point to is there: files, and behind `::` a test in them.
#[test]
fn what_docs_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut docs = texts(&root.join("docs"));
    docs.extend(PAGES_ABOVE.iter().map(|name| root.join(name)));
    let (mut files, mut tests) = (0, 0);
    for doc in docs.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for named in named_places(&fs::read_to_string(doc).unwrap()) {
            let (path, test) = named.split_once("::").map_or((&*named, None), |(path, test)| (path, Some(test)));
            assert!(root.join(path).exists(), "{}: there is no {path}", doc.display());
            files += 1;
            if let Some(test) = test {
                assert!(has_test(&root.join(path), test), "{}: there is no test {named}", doc.display());
                tests += 1;
            }
        }
    }
    assert!(files > 40 && tests > 25, "the check must see what docs name; it saw {files} files and {tests} tests");
}

/// Links of docs lead to files that are there, and to headings that are in them.
#[test]
fn links_of_docs_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut docs = texts(&root.join("docs"));
    docs.extend(PAGES_ABOVE.iter().chain(&["CHANGELOG.md"]).map(|name| root.join(name)));
    let mut links = 0;
    for doc in docs.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(doc).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
            let target = if path.is_empty() { doc.clone() } else { doc.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", doc.display());
            if let Some(heading) = heading {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.iter().any(|other| other == heading), "{}: no heading for {link}", doc.display());
            }
            links += 1;
        }
    }
    assert!(links > 60, "the check must see links; it saw {links}");
}

/// What ARCHITECTURE.md names as `room/file`, in its drawings and its text, is a file or a directory of that room.
#[test]
fn what_the_architecture_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let above = [root.join("src"), root.join("src/proxy"), root.join("src/policy")];
    let mut named = 0;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !['_', '/', '.'].contains(&c)) {
        let path = word.trim_matches(['/', '.']).trim_end_matches(".rs");
        let Some((room, _)) = path.split_once('/') else { continue };
        let rooms: Vec<&PathBuf> = above.iter().filter(|above| above.join(room).is_dir()).collect();
        if rooms.is_empty() {
            continue;
        }
        let is_there = |above: &&PathBuf| above.join(path).is_dir() || above.join(format!("{path}.rs")).is_file();
        assert!(rooms.iter().any(is_there), "ARCHITECTURE.md: there is no {path}");
        named += 1;
    }
    assert!(named > 40, "the check must see names of files; it saw {named}");
}

/// The anchors that GitHub gives to a document's headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |heading: &str| {
        let lower = heading.to_lowercase();
        let kept = lower.chars().filter(|c| c.is_alphanumeric() || ['-', '_', ' '].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(kept).collect()
}

#[test]
fn each_promise_names_its_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md")).unwrap();
    let promised = text.split("## ").find(|section| section.starts_with("What is promised")).expect("the promises");
    let rows: Vec<&str> = promised.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "the check must see promises; it saw {}", rows.len());
    for row in rows {
        let is_test = |place: &String| place.contains("::") || place.starts_with("tests/clients/");
        assert!(named_places(row).iter().any(is_test), "no test is named for: {row}");
    }
}

/// Places in this project that stand between backticks; not those with a placeholder.
fn named_places(text: &str) -> Vec<String> {
    const PARTS: [&str; 9] =
        ["src/", "tests/", "docs/", "scripts/", "bench/", "fuzz/", "dashboards/", "config/", "examples/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let is_place = |word: &&str| {
        PARTS.iter().any(|part| word.starts_with(part)) && !word.contains(['*', '<', '…', ' ', '\n', '{'])
    };
    quoted.filter(is_place).map(str::to_owned).collect()
}

fn has_test(path: &Path, name: &str) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    // Attributes stand above it.
    let is_test = |at: usize| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    lines.iter().enumerate().any(|(at, line)| is_it(line) && is_test(at))
}

/// Files of the project's own below a directory.
fn texts(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !["node_modules", "target", "__pycache__"].contains(&name.as_str()) && !name.starts_with('.') {
                found.extend(texts(&path));
            }
        } else {
            found.push(path);
        }
    }
    found
}
