//! Writes the corpus as seeds: `fuzz/corpus/<target>/<case>`, the stream behind the bytes that choose how it is read.

#[allow(dead_code, reason = "reports are the corpus test's")]
#[path = "../../tests/support/case.rs"]
mod case;

use std::fs;
use std::path::Path;

use streamgauge_fuzz::{TARGETS, seed};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = case::load_all(&root.join("../tests/corpus"));
    for (target, _) in TARGETS {
        let dir = root.join("corpus").join(target);
        fs::create_dir_all(&dir).unwrap();
        for case in &cases {
            let bytes = seed(target, case.dialect, case.framing, &case.bytes());
            fs::write(dir.join(case.name.replace('/', "-")), bytes).unwrap();
        }
    }
    println!("{} seeds a target in {}", cases.len(), root.join("corpus").display());
}
