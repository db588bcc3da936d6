//! Where the configuration comes from, and which files it stands in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::address::Listen;
use crate::config::defaults::ADMIN_TOKEN_ENV;
use crate::config::secret::Secret;
use crate::config::{self, Moment, Settings, admin_problem};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    File(PathBuf),
    /// One backend's address; no file at all.
    Upstream(String),
}

/// The configuration's origin, with what the command line puts over it. Each reload goes through it again.
#[derive(Debug, Clone)]
pub struct Source {
    pub origin: Origin,
    /// Replaces `server.listen` unless empty.
    pub listen: Vec<Listen>,
    /// Replaces `server.admin`.
    pub admin: Option<Listen>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Upstream(_) => f.write_str("--upstream"),
        }
    }
}

/// One reading of the configuration.
#[derive(Debug)]
pub struct Read {
    pub settings: Result<Settings, Vec<String>>,
    /// Every file that was looked at.
    pub files: Files,
}

impl Source {
    /// Reads the configuration and the files that it names.
    pub fn read(&self, moment: Moment) -> Read {
        let files = RefCell::new(Files::default());
        let settings = match &self.origin {
            Origin::Upstream(url) => config::for_upstream(url).map_err(|problems| lines(&problems)),
            Origin::File(path) => read_file(path, &files, moment),
        };
        let settings = settings.and_then(|settings| self.put_over(settings));
        let mut files = files.into_inner();
        if let Ok(settings) = &settings {
            for path in certificate_files(settings) {
                files.look(path);
            }
        }
        Read { settings, files }
    }

    fn put_over(&self, mut settings: Settings) -> Result<Settings, Vec<String>> {
        if !self.listen.is_empty() {
            settings.server.listen.clone_from(&self.listen);
        }
        if let Some(admin) = &self.admin {
            settings.server.admin = admin.clone();
        }
        if matches!(self.origin, Origin::Upstream(_)) && settings.server.admin_token.is_none() {
            // There is no file to name another variable.
            settings.server.admin_token = std::env::var(ADMIN_TOKEN_ENV).ok().map(Secret::new);
        }
        if let Some(problem) = admin_problem(&settings.server) {
            return Err(vec![problem]);
        }
        Ok(settings)
    }
}

/// Files, each with a fingerprint of its content; `None` for one that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<u64>>);

impl Files {
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// The same files as they are now.
    pub fn look_again(&self) -> Self {
        let mut now = Self::default();
        for path in self.paths() {
            now.look(path);
        }
        now
    }

    /// Whether any of `paths` is another than in `before`.
    pub fn differ<'a>(&self, before: &Self, mut paths: impl Iterator<Item = &'a Path>) -> bool {
        paths.any(|path| self.0.get(path) != before.0.get(path))
    }

    /// These files and those of `newer`, which wins where both have one.
    pub fn with(&self, newer: &Self) -> Self {
        let mut both = self.0.clone();
        both.extend(newer.0.iter().map(|(path, seen)| (path.clone(), *seen)));
        Self(both)
    }

    fn look(&mut self, path: &Path) {
        let fingerprint = fs::read(path).ok().map(|content| fingerprint(&content));
        self.0.insert(path.to_owned(), fingerprint);
    }
}

/// The certificate files of this server and of the upstreams' own authorities.
fn certificate_files(settings: &Settings) -> impl Iterator<Item = &Path> {
    tls_files(settings).chain(authority_files(settings))
}

/// The certificate and key that clients see.
pub(super) fn tls_files(settings: &Settings) -> impl Iterator<Item = &Path> {
    settings.server.tls.iter().flat_map(|tls| [tls.cert.as_path(), tls.key.as_path()])
}

/// The authorities that upstreams' certificates must chain to.
pub(super) fn authority_files(settings: &Settings) -> impl Iterator<Item = &Path> {
    settings.upstreams.iter().filter_map(|upstream| upstream.ca.as_deref())
}

fn read_file(path: &Path, files: &RefCell<Files>, moment: Moment) -> Result<Settings, Vec<String>> {
    // The content that is parsed is the content that is remembered: a change in between cannot be missed.
    let read = |path: &Path| -> io::Result<String> {
        let content = fs::read_to_string(path);
        let seen = content.as_ref().ok().map(|content| fingerprint(content.as_bytes()));
        files.borrow_mut().0.insert(path.to_owned(), seen);
        content
    };
    let name = path.display().to_string();
    let text = read(path).map_err(|error| config::unreadable(&name, &error));
    text.and_then(|text| config::parse_for(moment, &text, &name, &|variable| std::env::var(variable).ok(), &read))
        .map_err(|problems| lines(&problems))
}

fn lines(problems: &config::Problems) -> Vec<String> {
    problems.to_string().lines().map(str::to_owned).collect()
}

fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_its_file_says_what_to_do_next() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("none.toml");
        let source = Source { origin: Origin::File(file.clone()), listen: Vec::new(), admin: None };
        let read = source.read(Moment::Start);
        let [problem] = &read.settings.unwrap_err()[..] else { panic!("one problem") };
        assert!(problem.contains("none.toml") && problem.contains("`streamgauge init`"), "{problem}");
        assert_eq!(read.files.paths().collect::<Vec<_>>(), [file], "it is looked for again");
    }
}
