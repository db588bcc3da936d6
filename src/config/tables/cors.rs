//! `[cors]`: who may call from a browser.

use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::address::host_and_port;
use crate::config::checker::Checker;
use crate::config::grammar::is_token;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::Shown;

const MAX_AGE: Duration = Duration::from_secs(3600);

/// Who may call from a browser. Replaces what the backend says, and covers our own errors too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsTable {
    /// `"https://app.example.com"`; `"*"` alone means every origin.
    #[serde(default)]
    pub origins: Vec<At<String>>,
    /// Regular expressions that must match a whole origin.
    #[serde(default)]
    pub origin_patterns: Vec<At<String>>,
    /// Whether browsers may send cookies and `Authorization` by themselves.
    #[schemars(extend("default" = false))]
    pub credentials: Option<At<bool>>,
    /// Request headers that scripts may set; "*" alone means every header.
    #[schemars(extend("default" = ["*"]))]
    pub headers: Option<At<Vec<At<String>>>>,
    /// How long browsers may remember a preflight's answer.
    #[schemars(extend("default" = "1h"))]
    pub max_age: Option<At<DurationText>>,
}

/// `[cors]`: who may call from a browser.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cors {
    /// `*` alone means every origin.
    pub origins: Vec<String>,
    /// Anchored at both ends.
    pub origin_patterns: Vec<OriginPattern>,
    pub credentials: bool,
    pub headers: Vec<String>,
    #[serde(serialize_with = "Shown::shown")]
    pub max_age: Duration,
}

/// A compiled, anchored pattern that compares by its source.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct OriginPattern {
    pub source: String,
    #[serde(skip)]
    pub regex: regex_lite::Regex,
}

impl PartialEq for OriginPattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Checker<'_> {
    pub fn cors(&mut self, table: &Table<CorsTable>) -> Cors {
        let file = &table.value;
        let credentials = file.credentials.value_or_default();
        let is_lost = self.lost.is_lost(&table.span, "origins") || self.lost.is_lost(&table.span, "origin_patterns");
        if file.origins.is_empty() && file.origin_patterns.is_empty() && !is_lost {
            let message = "[cors] names nobody who may call: give `origins`, as [\"https://app.example.com\"], or \
                           `origin_patterns`; or remove [cors], and the backend's own CORS passes";
            self.problem(&table.span, message);
        }
        for at in &file.origins {
            self.origin(at, file.origins.len(), credentials);
        }
        let patterns = file.origin_patterns.iter().filter_map(|at| self.checked(&at.span, pattern(&at.value)));
        let origin_patterns = patterns.collect();
        Cors {
            origins: file.origins.iter().map(|at| at.value.clone()).collect(),
            origin_patterns,
            credentials,
            headers: self.cors_headers(file.headers.as_ref()),
            max_age: self.duration(file.max_age.as_ref(), MAX_AGE),
        }
    }

    fn origin(&mut self, at: &At<String>, origins: usize, credentials: bool) {
        if at.value != "*" {
            self.checked(&at.span, check_origin(&at.value));
        } else if origins > 1 {
            self.problem(&at.span, "\"*\" means every origin, so it stands alone");
        } else if credentials {
            let message = "every origin with `credentials = true` would let any web page read answers as its visitor: \
                           list the origins";
            self.problem(&at.span, message);
        }
    }

    fn cors_headers(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return vec!["*".to_owned()] };
        for at in &list.value {
            if at.value == "*" && list.value.len() > 1 {
                self.problem(&at.span, "\"*\" means every header, so it stands alone");
            } else if !is_token(at.value.as_bytes()) {
                self.problem(&at.span, "not the name of a header, as \"content-type\"");
            }
        }
        list.value.iter().map(|at| at.value.to_ascii_lowercase()).collect()
    }
}

/// An origin is a scheme, a host and perhaps a port, as browsers write it.
fn check_origin(text: &str) -> Result<(), String> {
    let (scheme, authority) = text
        .split_once("://")
        .ok_or_else(|| "an origin starts with its scheme, as \"https://app.example.com\"".to_owned())?;
    if let Some((host, _)) = authority.split_once('/') {
        return Err(format!("an origin has no path and no slash at its end: write \"{scheme}://{host}\""));
    }
    if authority.contains('*') {
        return Err("`origins` are written out in full; for a pattern use `origin_patterns`".to_owned());
    }
    if text != text.to_ascii_lowercase() {
        return Err(format!("browsers write origins in lower case: \"{}\"", text.to_ascii_lowercase()));
    }
    // Extensions and apps have schemes of their own, as chrome-extension:// and capacitor://.
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Err("an origin starts with its scheme, as \"https://app.example.com\"".to_owned());
    }
    let (_, port) = host_and_port(authority)?;
    match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) => {
            Err("browsers leave the scheme's own port out: remove it".to_owned())
        }
        _ => Ok(()),
    }
}

/// Compiles a pattern that must match a whole origin.
fn pattern(source: &str) -> Result<OriginPattern, String> {
    // Alone first: `a)|(b` is a pattern only between the parentheses put around it.
    let compile =
        |text: &str| -> Result<Regex, regex_lite::Error> { RegexBuilder::new(text).size_limit(1 << 20).build() };
    let alone = compile(source).and_then(|_| compile(&format!("^(?:{source})$")));
    let regex = alone.map_err(|error| format!("not a regular expression: {error}"))?;
    Ok(OriginPattern { source: source.to_owned(), regex })
}
