//! docs/glossary.md, row by row: what a row names exists, and each term has its words of others.

use std::fs;
use std::path::Path;

/// The cells of a table's rows, without its head; a section's first table is about this project, its second about others.
type Rows<'a> = Vec<Vec<&'a str>>;

fn tables(section: &str) -> Vec<Rows<'_>> {
    let mut tables: Vec<Rows> = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        if !line.starts_with('|') {
            inside = false;
            continue;
        }
        if !inside {
            tables.push(Vec::new());
            inside = true;
        }
        let cells = line.trim_matches('|').split('|').map(str::trim).collect();
        tables.last_mut().unwrap().push(cells);
    }
    // The names of the columns and the line below them are no terms.
    for table in &mut tables {
        table.drain(..2);
    }
    tables
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether the example configuration, which has every key, sets `key` or has a table of that name.
fn is_key(config: &str, key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap();
    let is_set = |(at, _): (usize, &str)| {
        let before = config[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    };
    config.match_indices(&format!("{name} = ")).any(is_set) || config.contains(&format!("[{name}]"))
}

#[test]
fn what_the_glossary_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (glossary, config, metrics) =
        (read("docs/glossary.md"), read("config/streamgauge.toml"), read("tests/golden/metrics.txt"));
    let telemetry: String = super::sources(&root.join("src/telemetry"))
        .iter()
        .filter(|path| !path.to_str().unwrap().ends_with("tests.rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let is_metric = |name: &str| metrics.lines().any(|line| line.split(' ').next() == Some(name));
    let mut terms = 0;
    for section in glossary.split("\n## ").skip(1) {
        let tables = tables(section);
        let [ours, others] = &tables[..] else { panic!("a section has two tables: {section}") };
        for row in ours {
            let [term, meaning, file, key, seen] = row[..] else { panic!("five columns: {row:?}") };
            assert!(meaning.ends_with('.'), "{term}: a whole sentence says what it is");
            let files: Vec<&str> = quoted(file).collect();
            assert!(!files.is_empty(), "{term}: no file is named");
            for file in files {
                assert!(root.join(file).is_file(), "{term}: there is no {file}");
            }
            for key in quoted(key) {
                assert!(is_key(&config, key), "{term}: config/streamgauge.toml has no key {key}");
            }
            for name in quoted(seen) {
                let is_field = || telemetry.contains(&format!("\"{name}\""));
                assert!(is_metric(name) || is_field(), "{term}: neither a metric nor a field of the log is {name}");
            }
            terms += 1;
        }
        let named = |rows: &Rows| rows.iter().map(|row| row[0].to_owned()).collect::<Vec<_>>();
        assert_eq!(named(ours), named(others), "both tables of a section have the same terms");
        assert!(others.iter().all(|row| row.len() == 5), "four others each: {others:?}");
    }
    assert!(terms > 40, "the check must see terms; it saw {terms}");
}
