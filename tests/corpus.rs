//! The gauge against streams as servers send them: each case of `tests/corpus` reads as its report says, in any pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/case.rs"]
mod case;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use streamgauge::llm::dialect::shape::shapes;
use streamgauge::llm::{Dialect, Framing, Gauge, StreamEnd};

use case::{Case, Report, dialect_of, directories, load_all};

const CASES_MIN: usize = 8;

/// Of a shape, which is rules alone; those that only stand inside of others have none.
const SHAPE_CASES_MIN: usize = 3;

const INNER_SHAPES: [&str; 4] = ["langchain-message", "langchain-usage", "langserve-log", "bedrock-chunk"];

/// Dialects whose streams are written, but which the gauge does not know yet.
const AWAITED: [&str; 0] = [];

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| load_all(&corpus_dir()));

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Feeds a case as its stream says.
fn replay(case: &Case) -> Gauge {
    let mut gauge = case.gauge();
    for (now, bytes) in &case.reads {
        let (before, was) = (gauge.reading().token_frames, gauge.dialect());
        let progress = gauge.feed(bytes, *now);
        // What was taken for tokens by guess is taken back once the stream shows what it is.
        if was == gauge.dialect() {
            assert_eq!(
                progress.token,
                gauge.reading().token_frames > before,
                "{}: progress tells of tokens",
                case.name
            );
        }
    }
    let (now, end) = case.end;
    gauge.finish(end, now);
    gauge
}

/// All that a stream of the given pieces tells but times: every byte came at zero.
fn timeless<'a>(case: &Case, pieces: impl IntoIterator<Item = &'a [u8]>) -> Report {
    let mut gauge = case.gauge();
    for piece in pieces {
        gauge.feed(piece, Duration::ZERO);
    }
    finished(case, gauge)
}

fn finished(case: &Case, mut gauge: Gauge) -> Report {
    gauge.finish(case.end.1, Duration::ZERO);
    let mut report = Report::of(&gauge);
    if gauge.framing() == Framing::Opaque {
        // Without framing a frame is a read.
        (report.frames, report.token_frames, report.max_gap_ms) = (0, 0, None);
    }
    report
}

#[test]
fn each_stream_reads_as_its_report_says() {
    let mut faults = Vec::new();
    for case in CASES.iter() {
        assert!(!case.reads.is_empty() || case.name.contains("empty"), "{} has a stream", case.name);
        assert!(!case.source.trim().is_empty(), "{}/source says what the stream follows", case.name);
        let gauge = replay(case);
        let sent: usize = case.reads.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(gauge.reading().bytes, sent as u64, "{}", case.name);
        let differences = case.expected.differences(&Report::of(&gauge));
        if !differences.is_empty() {
            faults.push(format!("{}\n    {}", case.name, differences.join("\n    ")));
        }
    }
    assert!(faults.is_empty(), "{} of {} cases differ:\n{}", faults.len(), CASES.len(), faults.join("\n"));
}

#[test]
fn each_dialect_has_its_cases_and_each_directory_its_dialect() {
    for dialect in Dialect::ALL {
        let found = directories(&corpus_dir().join(dialect.as_str())).len();
        assert!(found >= CASES_MIN, "tests/corpus/{} has {found} cases, of {CASES_MIN} at least", dialect.as_str());
    }
    for shape in shapes().iter().filter(|shape| !INNER_SHAPES.contains(&shape.name())) {
        let found = directories(&corpus_dir().join(shape.name())).len();
        assert!(
            found >= SHAPE_CASES_MIN,
            "tests/corpus/{} has {found} cases, of {SHAPE_CASES_MIN} at least",
            shape.name()
        );
    }
    let words = directories(&corpus_dir()).into_iter().map(|(word, _)| word);
    let left_over: Vec<_> =
        words.filter(|word| dialect_of(word).is_none() && !AWAITED.contains(&word.as_str())).collect();
    assert_eq!(left_over, Vec::<String>::new(), "directories of no known dialect: their cases do not run");
}

#[test]
fn a_split_at_any_byte_changes_nothing() {
    let mut splits = 0;
    for case in CASES.iter() {
        let bytes = case.bytes();
        let expected = timeless(case, [bytes.as_slice()]);
        let mut bytewise = case.gauge();
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            let mut gauge = case.gauge();
            gauge.feed(first, Duration::ZERO);
            let boundary = (gauge.at_boundary(), bytewise.at_boundary());
            assert_eq!(boundary.0, boundary.1, "{}: a boundary after {at} bytes, at once and bytewise", case.name);
            gauge.feed(second, Duration::ZERO);
            let differences = expected.differences(&finished(case, gauge));
            assert!(differences.is_empty(), "{} split at {at}: {}", case.name, differences.join("; "));
            if let Some(byte) = second.first() {
                bytewise.feed(&[*byte], Duration::ZERO);
            }
            splits += 1;
        }
        assert_eq!(expected.differences(&finished(case, bytewise)), Vec::<String>::new(), "{} bytewise", case.name);
    }
    assert!(splits > 1_000, "{splits}");
}

#[test]
fn a_normal_end_stays_unless_an_error_follows() {
    let mut cuts = 0;
    for case in CASES.iter().filter(|case| case.expected.normal_end) {
        let (bytes, mut ended) = (case.bytes(), false);
        for at in 0..=bytes.len() {
            let mut gauge = case.gauge();
            gauge.feed(&bytes[..at], Duration::ZERO);
            gauge.finish(StreamEnd::Cut, Duration::ZERO);
            assert!(!ended || gauge.reading().normal_end, "{}: taken back after {at} bytes", case.name);
            ended = gauge.reading().normal_end;
            cuts += 1;
        }
    }
    assert!(cuts > 1_000, "{cuts}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn pieces_of_any_sizes_change_nothing(
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(0usize..60, 1..30),
    ) {
        let case = &CASES[at.index(CASES.len())];
        let bytes = case.bytes();
        let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let expected = timeless(case, [bytes.as_slice()]);
        let differences = expected.differences(&timeless(case, pieces));
        prop_assert!(differences.is_empty(), "{}: {}", case.name, differences.join("; "));
    }
}
