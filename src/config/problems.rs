//! What is wrong with a configuration: every problem, its place, and the words to fix it.

use std::fmt;

/// Problems beyond this many are counted, not listed.
const LISTED_MAX: usize = 100;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 where the problem is not in a file's text, as a URL on the command line.
    pub line: usize,
    /// In characters, from 1; 0 where `line` is 0.
    pub column: usize,
    /// What is wrong and how to mend it. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message),
        }
    }
}

/// Every problem of one configuration, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    /// How many more there are than are listed.
    unlisted: usize,
}

impl Problems {
    /// A single problem without a place in a text.
    pub fn of_file(file: &str, message: String) -> Self {
        Self { list: vec![Problem { file: file.to_owned(), line: 0, column: 0, message }], unlisted: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many problems there are, listed or not.
    pub fn count(&self) -> usize {
        self.list.len().saturating_add(self.unlisted)
    }
}

impl fmt::Display for Problems {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.unlisted {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// Gathers problems by their byte offset in one text.
pub(super) struct Gathered {
    found: Vec<(usize, String)>,
}

impl Gathered {
    pub(super) fn new() -> Self {
        Self { found: Vec::new() }
    }

    pub(super) fn push(&mut self, offset: usize, message: String) {
        self.found.push((offset, message));
    }

    /// Whether as many are known as will be listed: looking for more is work for nothing.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= LISTED_MAX
    }

    /// The problems of something that is no file's text; `None` where there are none.
    pub(super) fn finish_without_text(self, what: &str) -> Option<Problems> {
        let mut problems = self.finish(what, "")?;
        for problem in &mut problems.list {
            (problem.line, problem.column) = (0, 0);
        }
        Some(problems)
    }

    /// The problems in the order of the text; `None` where there are none.
    pub(super) fn finish(mut self, file: &str, text: &str) -> Option<Problems> {
        if self.found.is_empty() {
            return None;
        }
        self.found.sort();
        self.found.dedup();
        let unlisted = self.found.len().saturating_sub(LISTED_MAX);
        let place = |(offset, message): (usize, String)| {
            let (line, column) = position(text, offset);
            Problem { file: file.to_owned(), line, column, message }
        };
        Some(Problems { list: self.found.into_iter().take(LISTED_MAX).map(place).collect(), unlisted })
    }
}

/// Line and column, both from 1, of a byte offset; an offset past the end is the end.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().filter(|c| *c != '\u{feff}').count() + 1;
    (line, column)
}

/// `: did you mean "x"?` when one of the known words is near, else the list of them.
pub(super) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean \"{near}\"?");
    }
    let known: Vec<String> = known.into_iter().take(30).map(|word| format!("\"{word}\"")).collect();
    match known.split_last() {
        None => "none are known here".to_owned(),
        Some((only, [])) => format!("the only one known is {only}"),
        Some((last, others)) => format!("known are {} and {last}", others.join(", ")),
    }
}

/// The known word that a slip of the keys could have made into `word`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are not slips, and the distance is quadratic.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    // Fewer than the whole word: any letter is one slip away from any other.
    let slips_max = length.div_ceil(3).min(3).min(length - 1);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= slips_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(word: &str, candidate: &str) -> usize {
    let is_part =
        word.len() >= 3 && candidate.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate));
    if is_part { 1 } else { strsim::osa_distance(word, candidate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let text = "a\nüb\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (2, 1));
        assert_eq!(position(text, 3), (2, 1), "inside a character is at its start");
        assert_eq!(position(text, 4), (2, 2));
        assert_eq!(position(text, 999), (3, 1));
        assert_eq!(position("", 5), (1, 1));
        assert_eq!(position("\u{feff}a = 1", 3), (1, 1), "a byte order mark takes no column");
    }

    #[test]
    fn near_words_are_suggested() {
        let known = ["listen", "admin", "max_body", "max_upload"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("max-body", known), Some("max_body"));
        assert_eq!(nearest("Admin", known), Some("admin"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("z", ["a"]), None);
        assert_eq!(hint("zebra", ["a", "b", "c"]), "known are \"a\", \"b\" and \"c\"");
        assert_eq!(hint("zebra", ["a"]), "the only one known is \"a\"");
    }

    #[test]
    fn problems_are_sorted_bounded_and_one_a_line() {
        let mut gathered = Gathered::new();
        gathered.push(2, "second".to_owned());
        gathered.push(0, "first".to_owned());
        gathered.push(0, "first".to_owned());
        let problems = gathered.finish("f.toml", "a\nb").unwrap();
        assert_eq!(problems.to_string(), "f.toml:1:1: first\nf.toml:2:1: second");

        let mut gathered = Gathered::new();
        (0..LISTED_MAX + 5).for_each(|n| gathered.push(n, format!("number {n}")));
        let problems = gathered.finish("f.toml", "").unwrap();
        assert_eq!(problems.count(), LISTED_MAX + 5);
        assert!(problems.to_string().ends_with("… and 5 more"));
    }
}
