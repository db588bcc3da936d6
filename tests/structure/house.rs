//! The files by which others carry the project on: worked examples, owners, updates of dependencies, the index of examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between backticks in a cell; nothing where there is none.
fn quoted(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or("")
}

/// docs/extending.md: each step's file has the text that the step names, and no file of `src/` has the example's name
/// without a step.
#[test]
fn worked_examples_are_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = read("docs/extending.md");
    let sources = super::sources(&root.join("src"));
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    let (mut examples, mut steps) = (0, 0);
    for example in page.split("<!-- worked example: ").skip(1) {
        let (name, rest) = example.split_once(" -->").unwrap();
        let table = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let mut named = BTreeSet::new();
        for row in table.skip(2) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            let (file, text) = (quoted(cells[0]), quoted(cells[1]));
            assert!(root.join(file).exists(), "{name}: there is no {file}; move the step, or the file back");
            assert!(text.is_empty() || read(file).contains(text), "{name}: {file} has no `{text}` any more");
            named.insert(file.to_owned());
            steps += 1;
        }
        for source in &sources {
            let file = source.strip_prefix(root).unwrap().to_str().unwrap();
            let has_it = !is_test(file) && fs::read_to_string(source).unwrap().contains(name);
            assert!(!has_it || named.contains(file), "{name} is in {file} too: docs/extending.md has no step for it");
        }
        examples += 1;
    }
    assert!(examples == 4 && steps > 30, "the check must see steps; it saw {steps} of {examples} examples");
}

#[test]
fn each_room_has_owners_and_what_is_owned_is_there() {
    let owners = read(".github/CODEOWNERS");
    let owned: Vec<&str> = owners
        .lines()
        .filter(|line| line.starts_with('/'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let path = words.next().unwrap();
            assert!(words.next().is_some_and(|owner| owner.starts_with('@')), "nobody owns {path}");
            path.trim_matches('/')
        })
        .collect();
    for path in &owned {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "CODEOWNERS: there is no {path}");
    }
    for room in super::ROOMS.iter().chain(&super::ALONE) {
        assert!(owned.contains(&&*format!("src/{room}")), "nobody owns src/{room}");
    }
}

/// A directory with a file by which dependencies are pinned is one of those whose updates are proposed.
#[test]
fn dependencies_are_kept_up_to_date() {
    let updates = read(".github/dependabot.yml");
    let of = |ecosystem: &str| {
        let entries: Vec<&str> =
            updates.split("  - package-ecosystem: ").filter(|entry| entry.lines().next() == Some(ecosystem)).collect();
        assert_eq!(entries.len(), 1, "one entry for {ecosystem}");
        let listed = entries[0].lines().find_map(|line| line.trim().strip_prefix("director")).unwrap();
        let (_, listed) = listed.split_once(':').unwrap();
        listed.trim_matches([' ', '[', ']']).split(", ").map(|at| at.trim_start_matches('/').to_owned()).collect()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (ecosystem, file) in
        [("cargo", "Cargo.lock"), ("pip", "requirements.txt"), ("npm", "package-lock.json"), ("docker", "Dockerfile")]
    {
        let listed: BTreeSet<String> = of(ecosystem);
        let mut there: BTreeSet<String> = ["bench", "examples", "fuzz", "packaging", "scripts", "tests"]
            .iter()
            .map(|part| root.join(part))
            .filter(|part| part.exists())
            .flat_map(|part| super::texts(&part))
            // Frameworks are tested as they are, with versions that a script picks.
            .filter(|path| !path.starts_with(root.join("tests/frameworks/requirements")))
            .filter(|path| path.file_name().unwrap().to_str().unwrap().ends_with(file))
            .map(|path| path.parent().unwrap().strip_prefix(root).unwrap().to_str().unwrap().to_owned())
            .collect();
        if root.join(file).exists() {
            there.insert(String::new());
        }
        assert_eq!(listed, there, "dependabot.yml, {ecosystem}: directories with a {file}");
    }
}

#[test]
fn each_example_is_in_the_index() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let index = read("examples/README.md");
    let mut examples = 0;
    for entry in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(index.contains(&format!("| [{name}]({name}/")), "examples/README.md has no row for {name}");
        examples += 1;
    }
    assert!(examples >= 3, "the check must see examples; it saw {examples}");
}

/// Actions of others are pinned by commit, jobs wait for jobs that exist, and each step runs a script of the project, which can be
/// run without GitHub.
#[test]
fn workflows_run_scripts_of_the_project() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut actions, mut steps) = (0, 0);
    for path in super::texts(&root.join(".github/workflows")) {
        let (text, file) = (fs::read_to_string(&path).unwrap(), path.file_name().unwrap().display());
        let jobs: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != "jobs:")
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .map(|line| line.trim().trim_end_matches(':'))
            .collect();
        for line in text.lines().map(|line| line.trim().trim_start_matches("- ")) {
            if let Some(action) = line.strip_prefix("uses: ") {
                let (_, pinned) = action.split_once('@').unwrap();
                let (commit, version) = pinned.split_once(" # v").expect("the version of a pinned action");
                let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(is_commit && !version.is_empty(), "{file}: {action} is not pinned by commit");
                actions += 1;
            } else if let Some(run) = line.strip_prefix("run: ") {
                let script = run.split_whitespace().next().unwrap();
                assert!(script.starts_with("scripts/"), "{file}: `{run}` calls no script");
                assert!(root.join(script).is_file(), "{file}: there is no {script}");
                steps += 1;
            } else if let Some(needed) = line.strip_prefix("needs: ") {
                for job in needed.trim_matches(['[', ']']).split(", ") {
                    assert!(jobs.contains(&job), "{file}: there is no job {job}");
                }
            }
        }
    }
    assert!(actions > 10 && steps > 10, "the check must see workflows; it saw {actions} actions and {steps} steps");
}
