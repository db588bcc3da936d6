//! A configuration from a file, another text, or the command line.

use std::io;
use std::path::{Path, PathBuf};

use super::checker::{Checker, Moment};
use super::problems::{Gathered, Problems};
use super::read::{Lost, read};
use super::settings::{File, ONE, SEVERAL, Settings};
use super::tables::upstream::UpstreamTable;
use super::units::{At, Table};

/// The configuration file that is used where none is named, in the current directory.
pub const DEFAULT_FILE: &str = "streamgauge.toml";

/// Largest file that is read, be it the configuration or one that it names, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Reads and checks a configuration file, with this process's environment.
///
/// # Errors
/// Every problem, also that of a file that cannot be read.
pub fn load(path: &Path) -> Result<Settings, Problems> {
    let name = path.display().to_string();
    loaded(read_bounded(path), &name)
}

/// As [`load`], for a text that comes from elsewhere, as standard input. Relative paths in it start at the current
/// directory.
///
/// # Errors
/// Every problem, also that of a text that cannot be read. `name` stands in them for the file.
pub fn load_from(reader: impl io::Read, name: &str) -> Result<Settings, Problems> {
    loaded(bounded(reader), name)
}

fn loaded(text: io::Result<String>, name: &str) -> Result<Settings, Problems> {
    let text = text.map_err(|error| unreadable(name, &error))?;
    parse(&text, name, &process_env, &read_bounded)
}

/// What is wrong with a configuration file that cannot be read, and what to do next.
pub fn unreadable(name: &str, error: &io::Error) -> Problems {
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!(
            "cannot be read: there is no such file. `streamgauge init` writes a first {DEFAULT_FILE}; --config or \
             STREAMGAUGE_CONFIG names a file that is there"
        ),
        _ => format!("cannot be read: {error}"),
    };
    Problems::of_file(name, message)
}

/// Checks a configuration's text. Pure: what is outside the text comes through `env` and `read_file`.
///
/// `file_name` is the file's path: it stands in problems, and relative paths in the text are relative to its directory.
///
/// # Errors
/// Every problem.
pub fn parse(
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Settings, Problems> {
    parse_for(Moment::Start, text, file_name, env, read_file)
}

/// As [`parse`], for the given moment.
///
/// # Errors
/// Every problem.
pub fn parse_for(
    moment: Moment,
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Settings, Problems> {
    let mut problems = Gathered::new();
    let readable = read::<File>(text, &ONE, &SEVERAL, &mut problems);
    let directory = Path::new(file_name).parent().unwrap_or(Path::new("")).to_path_buf();
    let settings = readable.map(|(file, lost)| {
        let files = Vec::new();
        Settings::check(
            &file,
            Checker { text, problems: &mut problems, lost, env, read_file, directory, files, moment },
        )
    });
    match (problems.finish(file_name, text), settings) {
        (None, Some(settings)) => Ok(settings),
        (Some(problems), _) => Err(problems),
        (None, None) => Err(Problems::of_file(file_name, "cannot be read as a configuration".to_owned())),
    }
}

/// What holds without a file: one upstream, one route for everything, the defaults.
///
/// # Errors
/// What is wrong with the URL, or with this process's environment.
pub fn for_upstream(url: &str) -> Result<Settings, Problems> {
    upstream_alone(url, &process_env)
}

fn upstream_alone(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Problems> {
    let url = At { value: url.to_owned(), span: 0..0 };
    let upstream = Table { value: UpstreamTable { url: Some(url), ..UpstreamTable::default() }, span: 0..0 };
    let file = File { upstream: vec![upstream], ..File::default() };
    let mut problems = Gathered::new();
    let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let checker = Checker {
        text: "",
        problems: &mut problems,
        lost: Lost::default(),
        env,
        read_file: &no_files,
        directory: PathBuf::new(),
        files: Vec::new(),
        moment: Moment::Start,
    };
    let settings = Settings::check(&file, checker);
    match problems.finish_without_text("--upstream") {
        None => Ok(settings),
        Some(problems) => Err(problems),
    }
}

fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_bounded(path: &Path) -> io::Result<String> {
    bounded(std::fs::File::open(path)?)
}

fn bounded(reader: impl io::Read) -> io::Result<String> {
    use io::Read as _;
    let mut bytes = Vec::new();
    reader.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("it is not UTF-8 text (line {line})"))
    })
}

#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod messages_tests;
#[cfg(test)]
pub(super) mod tests;
