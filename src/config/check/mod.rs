//! From the file as written to [`Settings`]: every problem at once, each with its place and the words to mend it.

mod browser;
mod canary;
mod failover;
mod identity;
mod limit;
mod price;
mod route;
mod server;
mod shadow;
mod stream;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Listen;
use super::file::{File, UpstreamTable};
use super::problems::{Gathered, Problems};
use super::read::{Readable, read};
use super::secret::Secret;
use super::settings::{Server, Settings};
use super::units::{At, DurationText, Table};

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
    let text = text.map_err(|e| Problems::of_file(name, format!("cannot be read: {e}")))?;
    parse(&text, name, &process_env, &read_bounded)
}

/// For what a configuration is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing runs with it yet.
    Start,
    /// It is to take the place of another. What would be a slip at the start may be meant here: who takes the last key out
    /// wants nobody to call any more.
    Reload,
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
    let readable = read(text, &mut problems);
    let directory = Path::new(file_name).parent().unwrap_or(Path::new("")).to_path_buf();
    let settings = readable.map(|readable| {
        check(readable, Checker { problems: &mut problems, env, read_file, directory, files: Vec::new(), moment })
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

/// What is wrong with the admin address and its token; `None`: nothing. To be asked again where the command line
/// overrides the address.
pub fn admin_problem(server: &Server) -> Option<String> {
    /// What nobody guesses over the network: 16 characters of `openssl rand -hex 16` are 64 bits.
    const TOKEN_MIN: usize = 16;
    if server.admin.is_local() {
        return None;
    }
    if let Some(token) = &server.admin_token {
        let length = token.expose().len();
        return (length < TOKEN_MIN).then(|| {
            format!(
                "the admin address {} can be reached from other machines, and its token has {length} characters: take at \
                 least {TOKEN_MIN}, as `openssl rand -hex 16` makes them",
                server.admin,
            )
        });
    }
    let port = match &server.admin {
        Listen::Tcp(address) => address.port(),
        Listen::Unix(_) => 0,
    };
    Some(format!(
        "the admin address {} can be reached from other machines, so it needs a token: set the environment variable \
         {}, or listen on 127.0.0.1:{port}",
        server.admin,
        super::defaults::ADMIN_TOKEN_ENV,
    ))
}

fn upstream_alone(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Problems> {
    let url = At { value: url.to_owned(), span: 0..0 };
    let upstream = Table { value: UpstreamTable { url: Some(url), ..UpstreamTable::default() }, span: 0..0 };
    let readable = Readable::whole(File { upstream: vec![upstream], ..File::default() });
    let mut problems = Gathered::new();
    let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let checker = Checker {
        problems: &mut problems,
        env,
        read_file: &no_files,
        directory: PathBuf::new(),
        files: Vec::new(),
        moment: Moment::Start,
    };
    let settings = check(readable, checker);
    match problems.finish_without_text("--upstream") {
        None => Ok(settings),
        Some(problems) => Err(problems),
    }
}

fn check(readable: Readable, mut checker: Checker<'_>) -> Settings {
    let file = &readable.file;
    let server = checker.server(file.server.as_ref());
    let cors = file.cors.as_ref().map(|cors| checker.cors(cors, &readable));
    let telemetry = checker.telemetry(file.telemetry.as_ref());
    let identity = file.identity.as_ref().map(|identity| checker.identity(identity, &readable));
    if checker.moment == Moment::Start {
        checker.way_in(&readable);
    }
    let upstreams = checker.upstreams(&readable);
    let limits = checker.limits(&readable);
    let limit_store = checker.limit_store(file.limits.as_ref());
    let prices = checker.prices(&readable);
    let routes = checker.routes(&readable, &upstreams, &limits, &prices);
    let upstreams = upstreams.into_iter().map(|declared| declared.upstream).collect();
    Settings { server, cors, telemetry, identity, upstreams, routes, limits, limit_store, prices, files: checker.files }
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

/// Walks the file, and gathers problems as it goes. Where a value is wrong it goes on with a default: the settings are
/// thrown away then.
struct Checker<'a> {
    problems: &'a mut Gathered,
    env: &'a dyn Fn(&str) -> Option<String>,
    read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Relative paths in the file start here.
    directory: PathBuf,
    /// The files read so far.
    files: Vec<PathBuf>,
    moment: Moment,
}

impl Checker<'_> {
    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.push(span.start, message.into());
    }

    /// The value, unless its check says what is wrong with it.
    fn checked<T>(&mut self, span: &Range<usize>, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(span, message)).ok()
    }

    /// A duration that may be zero.
    fn duration(&self, written: Option<&At<DurationText>>, default: Duration) -> Duration {
        written.map_or(default, |at| at.value.0)
    }

    /// A duration that cannot be zero.
    fn positive(&mut self, key: &str, written: Option<&At<DurationText>>, default: Duration) -> Duration {
        let Some(at) = written else { return default };
        if at.value.0.is_zero() {
            self.problem(&at.span, format!("`{key}`: zero would let nothing pass; leave it out for the default"));
        }
        at.value.0
    }

    /// A name that people, labels and addresses of the admin API can carry.
    fn name(&mut self, at: &At<String>) -> String {
        let name = at.value.trim();
        if name.is_empty() {
            self.problem(&at.span, "`name`: it is empty");
        } else if name.len() > 128 || name.chars().any(char::is_control) {
            self.problem(&at.span, "`name`: at most 128 bytes, without control characters");
        }
        name.to_owned()
    }

    /// Says so where a name was taken before.
    fn unique(&mut self, what: &str, name: &str, span: &Range<usize>, taken: &mut BTreeMap<String, ()>) -> bool {
        let is_new = taken.insert(name.to_owned(), ()).is_none();
        if !is_new {
            self.problem(span, format!("there is another {what} called \"{name}\": give one of them another `name`"));
        }
        is_new
    }

    fn path(&self, written: &str) -> PathBuf {
        self.directory.join(written)
    }

    /// Reads a file that the configuration names.
    fn read(&mut self, path: &Path) -> Result<String, String> {
        self.files.push(path.to_path_buf());
        (self.read_file)(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }

    /// The path of a PEM file that can be read and holds `marker`, as "CERTIFICATE" or "PRIVATE KEY".
    fn pem(&mut self, at: &At<String>, marker: &str) -> PathBuf {
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
    fn secret_from_env(&mut self, at: &At<String>) -> Option<Secret> {
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
    fn secret_from_file(&mut self, at: &At<String>) -> Option<Secret> {
        let path = self.path(&at.value);
        let shown = path.display();
        let secret = self.read(&path).and_then(|text| secret(&text).map_err(|wrong| format!("{shown} {wrong}")));
        self.checked(&at.span, secret)
    }
}

/// A secret as it can stand in a header; a final newline is the editor's.
fn secret(text: &str) -> Result<Secret, &'static str> {
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

fn is_variable_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod tests_failover;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_messages;
