//! What walks the written tables, and gathers what is wrong with them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problems::Gathered;
use super::read::{Lost, value_span};
use super::secret::Secret;
use super::units::{At, DurationText, Table};

/// Longest name of a user or team, in bytes.
const NAME_MAX: usize = 256;

/// For what a configuration is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing runs with it yet.
    Start,
    /// It is to take the place of another. What would be a slip at the start may be meant here: who takes the last key out
    /// wants nobody to call any more.
    Reload,
}

/// Walks the file, and gathers problems as it goes. Where a value is wrong it goes on with a default: the settings are
/// thrown away then.
pub struct Checker<'a> {
    /// The file's own.
    pub text: &'a str,
    pub problems: &'a mut Gathered,
    /// What was written and could not be read.
    pub lost: Lost,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Relative paths in the file start here.
    pub directory: PathBuf,
    /// The files read so far.
    pub files: Vec<PathBuf>,
    pub moment: Moment,
}

impl Checker<'_> {
    pub fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.push(span.start, message.into());
    }

    /// Where the value of `key` stands in `table`; the table itself where that is not known.
    pub fn span_of<T>(&self, table: &Table<T>, key: &str) -> Range<usize> {
        value_span(self.text, &table.span, key).unwrap_or_else(|| table.span.clone())
    }

    /// The value, unless its check says what is wrong with it.
    pub fn checked<T>(&mut self, span: &Range<usize>, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(span, message)).ok()
    }

    /// What is written, and where it does not fit, the problem.
    pub fn fitting<T: Copy>(
        &mut self,
        written: Option<&At<T>>,
        fits: impl FnOnce(T) -> bool,
        message: impl Into<String>,
    ) -> Option<T> {
        let at = written?;
        if !fits(at.value) {
            self.problem(&at.span, message);
        }
        Some(at.value)
    }

    /// What must be written under `key` of `table`, unless it was and could not be read.
    pub fn needed<'f, T, U>(
        &mut self,
        table: &Table<U>,
        key: &str,
        written: Option<&'f At<T>>,
        message: impl Into<String>,
    ) -> Option<&'f At<T>> {
        if written.is_none() && !self.lost.is_lost(&table.span, key) {
            self.problem(&table.span, message);
        }
        written
    }

    /// A duration that may be zero.
    pub fn duration(&self, written: Option<&At<DurationText>>, default: Duration) -> Duration {
        written.map_or(default, |at| at.value.0)
    }

    /// A duration that cannot be zero.
    pub fn positive(&mut self, key: &str, written: Option<&At<DurationText>>, default: Duration) -> Duration {
        let message = format!("`{key}`: zero would let nothing pass; leave it out for the default");
        self.fitting(written, |text| !text.0.is_zero(), message).map_or(default, |text| text.0)
    }

    /// A name that people, labels and addresses of the admin API can carry.
    pub fn name(&mut self, at: &At<String>) -> String {
        let name = at.value.trim();
        if name.is_empty() {
            self.problem(&at.span, "`name`: it is empty");
        } else if name.len() > 128 || name.chars().any(char::is_control) {
            self.problem(&at.span, "`name`: at most 128 bytes, without control characters");
        }
        name.to_owned()
    }

    /// Says so where a name was taken before.
    pub fn unique(&mut self, what: &str, name: &str, span: &Range<usize>, taken: &mut BTreeMap<String, ()>) -> bool {
        let is_new = taken.insert(name.to_owned(), ()).is_none();
        if !is_new {
            self.problem(span, format!("there is another {what} called \"{name}\": give one of them another `name`"));
        }
        is_new
    }

    pub fn path(&self, written: &str) -> PathBuf {
        self.directory.join(written)
    }

    /// Reads a file that the configuration names.
    pub fn read(&mut self, path: &Path) -> Result<String, String> {
        self.files.push(path.to_path_buf());
        (self.read_file)(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }

    /// The path of a PEM file that can be read and holds `marker`, as "CERTIFICATE" or "PRIVATE KEY".
    pub fn pem(&mut self, at: &At<String>, marker: &str) -> PathBuf {
        let path = self.path(&at.value);
        match self.read(&path) {
            Err(message) => self.problem(&at.span, message),
            Ok(text) if !has_pem(&text, marker) => {
                let message = format!("{} holds no PEM block \"-----BEGIN {marker}-----\"", path.display());
                self.problem(&at.span, message);
            }
            Ok(_) => {}
        }
        path
    }

    /// A secret out of an environment variable that must be set.
    pub fn secret_from_env(&mut self, at: &At<String>) -> Option<Secret> {
        // What is refused here may be the secret itself, so it is never repeated.
        if !is_variable_name(&at.value) {
            self.problem(&at.span, "this must be the name of an environment variable, as \"OPENAI_API_KEY\"");
            return None;
        }
        match (self.env)(&at.value) {
            Some(value) => {
                let secret = secret(&value).map_err(|wrong| format!("the environment variable named here {wrong}"));
                self.checked(&at.span, secret)
            }
            None => {
                let looks_like_name = at.value.len() <= 64 && !at.value.chars().any(|c| c.is_ascii_lowercase());
                let named = if looks_like_name { at.value.as_str() } else { "named here" };
                self.problem(&at.span, format!("the environment variable {named} is not set"));
                None
            }
        }
    }

    /// A secret out of a file that must be there.
    pub fn secret_from_file(&mut self, at: &At<String>) -> Option<Secret> {
        let path = self.path(&at.value);
        let shown = path.display();
        let secret = self.read(&path).and_then(|text| secret(&text).map_err(|wrong| format!("{shown} {wrong}")));
        self.checked(&at.span, secret)
    }

    /// A text that says something, and that headers and logs can carry.
    pub fn filled(&mut self, key: &str, written: Option<&At<String>>) -> Option<String> {
        let at = written?;
        if at.value.trim().is_empty() {
            self.problem(&at.span, format!("`{key}` is empty: leave it out, or fill it in"));
        } else if at.value.len() > NAME_MAX || at.value.chars().any(char::is_control) {
            self.problem(&at.span, format!("`{key}`: at most {NAME_MAX} bytes, without control characters"));
        }
        Some(at.value.clone())
    }
}

/// A secret as it can stand in a header; a final newline is the editor's.
pub fn secret(text: &str) -> Result<Secret, &'static str> {
    match text.trim() {
        "" => Err("is empty"),
        text if text.len() > 16_384 => Err("is longer than 16 KiB"),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("holds something that no header can carry: spaces, line breaks or letters outside ASCII")
        }
        text => Ok(Secret::new(text.to_owned())),
    }
}

/// Whether a PEM block of the kind begins somewhere; "PRIVATE KEY" also stands for "RSA PRIVATE KEY" and the like.
fn has_pem(text: &str, marker: &str) -> bool {
    let ending = format!("{marker}-----");
    text.lines().any(|line| line.trim_end().strip_prefix("-----BEGIN ").is_some_and(|kind| kind.ends_with(&ending)))
}

pub fn is_variable_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
